"""What quantising costs in quality: perplexity of one text in float32, bfloat16 and int8. Measures no speed.

The text is the Python language's own reference, which comes with Python (pydoc_data), so that nothing is downloaded.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import torch
from transformers import PreTrainedModel

from adapters.base_model import BaseModel, load_weights, open_base_model
from server.engine.batch import Batch, ScheduledSequence
from server.engine.block_manager import BlockManager
from server.engine.native.forward import BLOCK_SIZE, NativeForward
from server.engine.sequence import Sequence
from server.engine.step_inputs import StepInputs

WINDOW = 512
NUM_WINDOWS = 16

_CPU = torch.device("cpu")

Logits = Callable[[list[int]], torch.Tensor]
"""Token ids of a window to the logits `[len, vocab_size]` after each of them."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Perplexity of the text under one way of computing the model: e to the mean loss in nats of a token."""

    label: str
    perplexity: float


def measure_quality(base_name: str, *, home: Path, say: Callable[[str], None]) -> list[Quality]:
    """Perplexity in float32 and bfloat16 (stock model), and in bfloat16 and int8 (native decoder).

    Raises BaseModelError, NativeUnavailable.
    """
    base = open_base_model(base_name, home=home)
    windows = _windows(base)
    exact = load_weights(base.path, dtype=torch.float32, device=_CPU)
    rounded = load_weights(base.path, dtype=torch.bfloat16, device=_CPU)
    ways: tuple[tuple[str, Callable[[], Logits]], ...] = (
        ("float32, stock model", lambda: _stock(exact)),
        ("bfloat16, stock model", lambda: _stock(rounded)),
        ("bfloat16, native decoder", lambda: _native(rounded, is_int8=False, cache=home / "native")),
        ("int8, native decoder", lambda: _native(rounded, is_int8=True, cache=home / "native")),
    )
    results = []
    for label, make in ways:
        results.append(Quality(label, _perplexity(windows, make())))
        say(f"{label}: perplexity {results[-1].perplexity:.3f} on {NUM_WINDOWS * (WINDOW - 1):,} tokens")
    return results


def _windows(base: BaseModel) -> list[list[int]]:
    text = "\n\n".join(topics[name] for name in sorted(topics))
    ids: list[int] = base.tokenizer(text[: NUM_WINDOWS * WINDOW * 16])["input_ids"]
    return [ids[start : start + WINDOW] for start in range(0, NUM_WINDOWS * WINDOW, WINDOW)]


def _perplexity(windows: list[list[int]], logits: Logits) -> float:
    losses = []
    with torch.inference_mode():
        for window in windows:
            log_probabilities = logits(window)[:-1].float().log_softmax(dim=-1)
            targets = torch.tensor(window[1:])
            losses.append(-log_probabilities.gather(1, targets[:, None]).double().mean().item())
    return math.exp(sum(losses) / len(losses))


def _stock(model: PreTrainedModel) -> Logits:
    def logits(window: list[int]) -> torch.Tensor:
        made: torch.Tensor = model(input_ids=torch.tensor([window]), use_cache=False).logits[0]
        return made

    return logits


def _native(model: PreTrainedModel, *, is_int8: bool, cache: Path) -> Logits:
    num_blocks = WINDOW // BLOCK_SIZE + 1
    forward = NativeForward(model, num_blocks=num_blocks, max_model_len=WINDOW, is_int8=is_int8, cache=cache)
    embed = model.get_input_embeddings()

    def logits(window: list[int]) -> torch.Tensor:
        sequence = Sequence.create(0, window, None, cache_seed=b"quality")
        BlockManager(num_blocks, BLOCK_SIZE).admit(sequence)
        batch = Batch((ScheduledSequence(sequence, 0, len(window)),), ())
        embeddings = embed(torch.tensor(window)).to(forward.input_dtype)
        return forward.logits(batch, StepInputs(embeddings), range(len(window)))

    return logits
