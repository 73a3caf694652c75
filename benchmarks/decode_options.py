"""Options of `hotprompt bench decode`, checked all at once. Starts nothing."""

from dataclasses import dataclass

import torch

from benchmarks.errors import WrongUsage
from benchmarks.options import DTYPES, read_choice, read_number, read_numbers

DEFAULT_SEQUENCES = (1, 8, 16, 32, 64)
DEFAULT_CONTEXT = 1024
DEFAULT_STEPS = 64
DEVICES = ("cuda", "cpu")
WARM_UP_STEPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeOptions:
    """What is measured, and on what. `context` is the tokens of a prompt; the cache's default is the device's."""

    base: str
    device: torch.device
    dtype: torch.dtype
    sequences: tuple[int, ...] = DEFAULT_SEQUENCES
    context: int = DEFAULT_CONTEXT
    steps: int = DEFAULT_STEPS
    kv_cache_bytes: int | None = None
    lora: int = 0
    """Adapters of rank `LORA_RANK` on every linear module, measured after the base where there are any."""

    @property
    def num_tokens(self) -> int:
        """Of each sequence at its end: the prompt, the token that comes with it, and one for each step."""
        return self.context + 1 + WARM_UP_STEPS + self.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeFlags:
    """The flags as they were typed; None where one was not."""

    base: str | None = None
    device: str | None = None
    dtype: str | None = None
    sequences: str | None = None
    context: str | None = None
    steps: str | None = None
    lora: str | None = None


def read_decode_options(flags: DecodeFlags, *, default_base: str) -> DecodeOptions:
    """Options from flags. Raises WrongUsage with a line for each problem, naming its flag."""
    problems: list[str] = []
    device = read_choice("--device", flags.device or DEVICES[0], DEVICES, problems)
    dtype = read_choice("--dtype", flags.dtype or DTYPES[0], DTYPES, problems)
    sequences = read_numbers("--sequences", flags.sequences, DEFAULT_SEQUENCES, problems)
    context = read_number("--context", flags.context, DEFAULT_CONTEXT, (16, 1 << 20), problems)
    steps = read_number("--steps", flags.steps, DEFAULT_STEPS, (1, 100_000), problems)
    lora = read_number("--lora", flags.lora, 0, (0, 256), problems)
    if problems:
        raise WrongUsage(*problems)
    return DecodeOptions(
        base=flags.base or default_base,
        device=torch.device(device),
        dtype=getattr(torch, dtype),
        sequences=sequences,
        context=context,
        steps=steps,
        lora=lora,
    )
