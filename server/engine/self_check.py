"""The start-up self-check: packed and paged against the stock model, one prompt at a time. Knows no requests.

A model whose family does something that our attention does not know (another bias, state kept elsewhere) differs here
and is refused, rather than served wrong.
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from server.engine.batch import Batch, ScheduledSequence
from server.engine.block_manager import BlockManager
from server.engine.errors import ModelUnsupported
from server.engine.model_runner import ModelRunner
from server.engine.sampling_params import SamplingParams
from server.engine.sequence import Sequence

_LENGTHS = (3, 8, 19)
_LONGEST_LOCAL = 64
"""Windows up to this size are crossed by a prompt; of longer ones only what `reach_probe` reads is known."""
_TOLERANCE = {torch.float32: 3e-4, torch.bfloat16: 0.1, torch.float16: 0.03}
_INT8_TOLERANCE = 0.25
"""Largest spread of the differences, in spreads (standard deviations) of the stock model's logits; 1.4 is unrelated.

In bfloat16 the stock model itself is 0.02 to 0.05 from what it says in float32.
"""


@dataclass(frozen=True, slots=True)
class StockAnswer:
    """A prompt of token ids, and the stock model's logits `[vocab_size]` after it, float32 on the CPU."""

    token_ids: list[int]
    logits: torch.Tensor


def ask_stock_model(model: PreTrainedModel) -> list[StockAnswer]:
    """The model's own answers to short fixed prompts, before its attention is replaced."""
    vocab_size = model.config.get_text_config().vocab_size
    generator = torch.Generator().manual_seed(0)
    answers = []
    for length in _lengths(model):
        token_ids = torch.randint(0, vocab_size, (1, length), generator=generator)
        try:
            with torch.inference_mode():
                logits = model(input_ids=token_ids.to(model.device), use_cache=False).logits[0, -1]
        except Exception as error:
            raise ModelUnsupported(f"models of type {model.config.model_type} do not compute text: {error}") from error
        answers.append(StockAnswer(token_ids[0].tolist(), logits.float().cpu()))
    return answers


def _lengths(model: PreTrainedModel) -> list[int]:
    """How long the prompts are: one goes beyond every local attention that is short enough."""
    config = model.config.get_text_config()
    sizes = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    local = [size for size in sizes if size is not None and size <= _LONGEST_LOCAL]
    return [*_LENGTHS, *([max(local) + max(_LENGTHS)] if local else [])]


def tolerance_of(dtype: torch.dtype, *, is_int8: bool) -> float:
    """The largest difference that rounding explains, see `_TOLERANCE`."""
    return _INT8_TOLERANCE if is_int8 else _TOLERANCE[dtype]


def check_against_stock(
    runner: ModelRunner,
    answers: list[StockAnswer],
    *,
    model_type: str,
    tolerance: float,
    block_size: int,
    num_blocks: int,
) -> None:
    """Compute the same prompts packed, in three steps that read what earlier ones cached.

    First two tokens or a few more of each, then all but the last, then the last alone: single tokens may be computed in
    a way of their own.

    Uses the cache's first blocks, and keeps nothing there. Raises ModelUnsupported when an answer differs.
    """
    blocks = BlockManager(num_blocks, block_size)
    sequences = [_admitted(i, answer.token_ids, blocks) for i, answer in enumerate(answers)]
    try:
        with torch.inference_mode():
            for step in _steps(sequences):
                logits = runner.logits(step, {}).float().cpu()
    except Exception as error:
        raise ModelUnsupported(f"models of type {model_type} cannot be computed packed: {error}") from error
    for answer, packed in zip(answers, logits, strict=True):
        difference = float((packed - answer.logits).std() / answer.logits.std())
        if not difference <= tolerance:
            raise ModelUnsupported(
                f"models of type {model_type} are not computed exactly by the packed engine: after "
                f"{len(answer.token_ids)} tokens their logits differ by {difference:.3g} standard deviations "
                f"(limit {tolerance})"
            )


def _admitted(request_id: int, token_ids: list[int], blocks: BlockManager) -> Sequence:
    sequence = Sequence.create(request_id, token_ids, SamplingParams(max_tokens=1), cache_seed=b"self-check")
    if blocks.admit(sequence) is None:
        raise ModelUnsupported("the KV cache is too small for the start-up self-check; raise --kv-cache-memory")
    return sequence


def _steps(sequences: list[Sequence]) -> list[Batch]:
    """Three steps over all of every sequence; one of three tokens takes no part in the second."""
    first = [ScheduledSequence(sequence, 0, 2 + i) for i, sequence in enumerate(sequences)]
    rest = [ScheduledSequence(item.sequence, item.stop, item.sequence.num_tokens - 1 - item.stop) for item in first]
    last = [ScheduledSequence(sequence, sequence.num_tokens - 1, 1) for sequence in sequences]
    return [Batch(tuple(items), ()) for items in (first, [item for item in rest if item.num_tokens > 0], last)]
