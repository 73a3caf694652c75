"""How near decoding comes to the memory's speed: steps of the engine itself, in this process. Measures no server.

A decoding step reads every weight and every cached key and value once, and can be no faster than that takes.
"""

import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass
from itertools import cycle, islice, product
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import PreTrainedModel

from adapters.base_model import load_weights, open_base_model
from adapters.fitting import linear_shapes
from adapters.injections import WeightDelta
from benchmarks.bandwidth import copy_bandwidth
from benchmarks.decode_options import WARM_UP_STEPS, DecodeOptions
from benchmarks.errors import WrongUsage
from benchmarks.kv_size import block_tokens, bytes_per_token
from benchmarks.percentiles import median
from benchmarks.random_deltas import random_lora
from benchmarks.servers import LORA_RANK
from server.engine.config import EngineConfig
from server.engine.cuda.accelerator import find_accelerator
from server.engine.engine import Engine
from server.engine.loader import build_engine
from server.engine.sampling_params import SamplingParams

_PREFILL_TOKENS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeSpeed:
    """Medians over the measured steps of so many sequences; `floor_ms` is what reading takes at `bandwidth`.

    Of the sequences, each takes the next of so many LoRA adapters; 0 is the base.
    """

    sequences: int
    adapters: int = 0
    keys: float
    """Cached tokens of a sequence."""
    step_ms: float
    floor_ms: float
    share: float
    """Of the floor in the step: 1 is as fast as the memory is."""

    @property
    def tokens_per_second(self) -> float:
        return 1000 * self.sequences / self.step_ms


def measure_decode(options: DecodeOptions, *, home: Path, say: Callable[[str], None]) -> list[DecodeSpeed]:
    """Measure decoding for each number of sequences.

    Raises BaseModelError, ModelUnsupported, CacheTooSmall, and WrongUsage where something does not fit.

    What else a step does, scheduling and sampling among it, counts as its time.
    """
    base = open_base_model(options.base, home=home)
    model = load_weights(base.path, dtype=options.dtype, device=options.device)
    config = model.config.get_text_config()
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is not None and options.num_tokens > positions:
        raise WrongUsage(f"--context {options.context}: with --steps that is over the model's {positions} tokens")
    weights, token_bytes = _bytes_read(model), bytes_per_token(base.path, options.dtype)
    bandwidth = copy_bandwidth(options.device)
    torch.cuda.empty_cache()  # what was copied must not count as taken when the KV cache is sized
    say(f"weights {weights / 1e9:.3f} GB, KV {token_bytes} bytes a token, memory {bandwidth / 1e9:.1f} GB/s by copying")

    adapters = [random_lora(linear_shapes(model), seed=seed, rank=LORA_RANK) for seed in range(options.lora)]
    engine = _engine(model, options, native_cache=home / "native")
    random = Random(0)
    speeds = []
    for sequences, used in product(options.sequences, [[], adapters] if adapters else [[]]):
        prompts = [[random.randrange(config.vocab_size) for _ in range(options.context)] for _ in range(sequences)]
        lengths, seconds = zip(*_steps(engine, prompts, used, options.steps), strict=True)
        floors = [(weights + sequences * keys * token_bytes) / bandwidth for keys in lengths]
        speeds.append(
            DecodeSpeed(
                sequences=sequences,
                adapters=min(len(used), sequences),
                keys=median(lengths),
                step_ms=1000 * median(seconds),
                floor_ms=1000 * median(floors),
                share=median([floor / taken for floor, taken in zip(floors, seconds, strict=True)]),
            )
        )
        say(_told(speeds[-1]))
    return speeds


def _told(speed: DecodeSpeed) -> str:
    over = f" over {speed.adapters} LoRA adapters" if speed.adapters else ""
    return f"{speed.sequences} sequences{over}: {speed.step_ms:.2f} ms a step, {speed.share:.0%} of the floor's speed"


def _engine(model: PreTrainedModel, options: DecodeOptions, *, native_cache: Path) -> Engine:
    most = max(options.sequences)
    config = EngineConfig(
        max_model_len=options.num_tokens,
        max_num_seqs=most,
        # What the prefix cache leaves of every prompt is computed in one step, so that all begin to decode at once.
        max_num_batched_tokens=max(_PREFILL_TOKENS, most * block_tokens(options.dtype)),
        kv_cache_bytes=options.kv_cache_bytes,
    )
    return build_engine(
        model,
        fingerprint="bench",
        config=config,
        native_cache=native_cache,
        accelerator=find_accelerator(options.device, options.dtype),
    )


def _steps(
    engine: Engine, prompts: list[list[int]], adapters: Items[WeightDelta], number: int
) -> Iterator[tuple[float, float]]:
    """Of each measured step, the keys that a sequence reads, and the seconds that it takes."""
    injections = list(islice(cycle(adapters or [None]), len(prompts)))
    for request_id, prompt in enumerate(prompts):
        engine.add_request(request_id, prompt, None, injections[request_id])
    while engine.has_work:
        engine.step()
    params = SamplingParams(max_tokens=1 + WARM_UP_STEPS + number, temperature=0)
    for request_id, prompt in enumerate(prompts):
        engine.add_request(request_id, prompt, params, injections[request_id])
    if sum(output.token_id is not None for output in engine.step()) < len(prompts):
        raise WrongUsage(f"--sequences {len(prompts)}: the KV cache does not hold so many of this context")
    for made in range(1, 1 + WARM_UP_STEPS + number):
        started = time.perf_counter()
        outputs = engine.step()
        seconds = time.perf_counter() - started
        assert len(outputs) == len(prompts), "a step in which every sequence decodes"
        if made > WARM_UP_STEPS:
            yield len(prompts[0]) + made, seconds
    assert not engine.has_work, "all sequences end at once"


def _bytes_read(model: Any) -> int:
    """Of all weights but an input embedding that is nothing else, of which a step reads a row for each sequence."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    total: int = sum(parameter.nbytes for parameter in model.parameters())
    is_tied = head is not None and head.weight.data_ptr() == embedding.weight.data_ptr()
    return total if is_tied else total - int(embedding.weight.nbytes)


def decode_table(speeds: list[DecodeSpeed]) -> str:
    """The speeds as a table in Markdown."""
    rows = [
        f"| {speed.sequences} | {speed.keys:.0f} | {speed.tokens_per_second:.1f} | {speed.step_ms:.3f} "
        f"| {speed.floor_ms:.3f} | {speed.share:.0%} |"
        for speed in speeds
    ]
    head = [
        "| sequences | keys of each | tokens/s | step ms | floor ms | share of the floor |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def lora_table(speeds: list[DecodeSpeed]) -> str:
    """The speeds with adapters beside those of the base with as many sequences, as a table in Markdown."""
    base = {speed.sequences: speed for speed in speeds if not speed.adapters}
    rows = [
        f"| {speed.sequences} | {speed.adapters} | {base[speed.sequences].tokens_per_second:.1f} "
        f"| {speed.tokens_per_second:.1f} | {speed.tokens_per_second / base[speed.sequences].tokens_per_second:.2f} "
        f"| {speed.step_ms - base[speed.sequences].step_ms:.3f} |"
        for speed in speeds
        if speed.adapters
    ]
    head = [
        "| sequences | LoRA adapters | tokens/s on the base | tokens/s with LoRA | of the base's | more ms a step |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows])
