"""Decode steps that were recorded once, by batch size, and are replayed. Knows no sampling and no CUDA."""

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Rows
from functools import partial

import torch

from adapters.injections import Injection
from server.engine.batch import Batch
from server.engine.cuda.attention import VarlenAttention
from server.engine.cuda.buffers import DecodeBuffers
from server.engine.forward import Forward, PackedModel
from server.engine.kv_cache import KVCache
from server.engine.placing import placed
from server.engine.step_inputs import KVPlacement, StepInputs

Replay = Callable[[], object]
Recorder = Callable[[Callable[[], None]], Replay]
"""Runs a function, some times over, and gives back what does again what it did: on the same tensors, without Python."""

LARGEST_BUCKET = 256
"""Steps of more sequences run as they come: there, launching kernels takes a small part of the time."""
_BUCKET_STEP = 8


def bucket_sizes(most: int) -> tuple[int, ...]:
    """The batch sizes that are recorded where up to `most` sequences run: 1, 2, 4, and then every eighth."""
    most = min(most, LARGEST_BUCKET)
    return (*(size for size in (1, 2, 4, *range(_BUCKET_STEP, most, _BUCKET_STEP)) if size < most), most)


class DecodeForward:
    """A `Forward` that replays steps in which every sequence computes one token, padded to the next bucket.

    All other steps, those with weight deltas among them, go to `eager`, over the same cache.
    """

    def __init__(
        self,
        eager: Forward,
        cache: KVCache,
        buffers: DecodeBuffers,
        replays: Mapping[int, Replay],
        logits: torch.Tensor,
    ) -> None:
        """`replays`, by bucket, smallest first, read the buffers and leave `logits` `[largest bucket, vocab_size]`."""
        self._eager = eager
        self._cache = cache
        self._buffers = buffers
        self._replays = replays
        self._logits = logits

    @property
    def device(self) -> torch.device:
        return self._eager.device

    @property
    def input_dtype(self) -> torch.dtype:
        return self._eager.input_dtype

    def require_fit(self, injection: Injection) -> None:
        """See `Forward`."""
        self._eager.require_fit(injection)

    def write_kv(self, placements: Rows[KVPlacement]) -> None:
        """See `Forward`."""
        self._eager.write_kv(placements)

    def logits(self, batch: Batch, inputs: StepInputs, rows: Rows[int]) -> torch.Tensor:
        """See `Forward`."""
        if inputs.deltas or not self._buffers.fits(batch):
            return self._eager.logits(batch, inputs, rows)
        bucket = next(size for size in self._replays if size >= len(batch.items))
        self._cache.copy(batch.copies)
        self._buffers.fill(batch, inputs.embeddings, num_rows=bucket)
        self._replays[bucket]()
        return self._logits.index_select(0, placed(rows, torch.int64, self.device))

    def logits_and_hidden(
        self, batch: Batch, inputs: StepInputs, rows: Rows[int], hidden_rows: Rows[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Forward`; nothing of it is recorded."""
        return self._eager.logits_and_hidden(batch, inputs, rows, hidden_rows)


def record_decode(
    model: PackedModel,
    eager: Forward,
    cache: KVCache,
    attention: VarlenAttention,
    buffers: DecodeBuffers,
    *,
    buckets: tuple[int, ...],
    record: Recorder,
) -> DecodeForward:
    """Record the model for each of the buckets, whose largest the buffers are made for. Raises what recording raises.

    The largest is recorded first: the others find room in the memory that it took.
    """

    def compute(bucket: int) -> torch.Tensor:
        with attention.over(buffers.pages(bucket)):
            return model.logits(buffers.embeddings(bucket), buffers.positions(bucket), None)

    def compute_into(logits: torch.Tensor, bucket: int) -> None:
        logits[:bucket].copy_(compute(bucket))

    with torch.inference_mode():
        largest = compute(buckets[-1])
    logits = torch.empty(largest.shape, dtype=largest.dtype, device=largest.device)  # one for all, and in nobody's pool
    with torch.inference_mode():
        replays = {bucket: record(partial(compute_into, logits, bucket)) for bucket in reversed(buckets)}
    return DecodeForward(eager, cache, buffers, dict(sorted(replays.items())), logits)
