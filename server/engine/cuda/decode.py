"""Decode steps that were recorded once, by batch size, and are replayed. Knows no sampling and no CUDA."""

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Rows
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch

from adapters.injections import Injection
from server.engine.batch import Batch
from server.engine.cuda.attention import VarlenAttention
from server.engine.cuda.buffers import DecodeBuffers
from server.engine.cuda.recorded_deltas import RecordedDeltas
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

    Steps with weight deltas have recordings of their own, where they could be made. All other steps go to `eager`, over
    the same cache.
    """

    def __init__(
        self,
        eager: Forward,
        cache: KVCache,
        buffers: DecodeBuffers,
        replays: Mapping[int, Replay],
        logits: torch.Tensor,
        *,
        delta_replays: Mapping[int, Replay] | None = None,
        deltas: RecordedDeltas | None = None,
    ) -> None:
        """`replays`, by bucket, smallest first, read the buffers and leave `logits` `[largest bucket, vocab_size]`.

        `delta_replays` do the same, and add what `deltas` says.
        """
        self._eager = eager
        self._cache = cache
        self._buffers = buffers
        self._replays = replays
        self._logits = logits
        self._delta_replays = delta_replays or {}
        self._deltas = deltas

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
        if not self._buffers.fits(batch):
            return self._eager.logits(batch, inputs, rows)
        replays, held = self._replays, None
        if inputs.deltas:
            held = None if self._deltas is None else self._deltas.fill(inputs.deltas)  # until the step is launched
            if held is None:
                return self._eager.logits(batch, inputs, rows)
            replays = self._delta_replays
        bucket = next(size for size in replays if size >= len(batch.items))
        self._cache.copy(batch.copies)
        self._buffers.fill(batch, inputs.embeddings, num_rows=bucket)
        replays[bucket]()
        del held
        return self._logits.index_select(0, placed(rows, torch.int64, self.device))

    def logits_and_hidden(
        self, batch: Batch, inputs: StepInputs, rows: Rows[int], hidden_rows: Rows[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Forward`; nothing of it is recorded."""
        return self._eager.logits_and_hidden(batch, inputs, rows, hidden_rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What decode steps are recorded with: the model over its cache, buffers made for the largest bucket."""

    model: PackedModel
    eager: Forward
    cache: KVCache
    attention: VarlenAttention
    buffers: DecodeBuffers
    buckets: tuple[int, ...]
    record: Recorder

    def steps(self) -> "RecordedSteps":
        """Record the model for each of the buckets. Raises what recording raises."""
        with torch.inference_mode():
            largest = self._compute(self.buckets[-1])
        # One for all, and in nobody's pool.
        logits = torch.empty(largest.shape, dtype=largest.dtype, device=largest.device)
        return RecordedSteps(self, logits, self.record_all(logits, None))

    def _compute(self, bucket: int) -> torch.Tensor:
        with self.attention.over(self.buffers.pages(bucket)):
            return self.model.logits(self.buffers.embeddings(bucket), self.buffers.positions(bucket), None)

    def _compute_into(self, logits: torch.Tensor, deltas: RecordedDeltas | None, bucket: int) -> None:
        with nullcontext() if deltas is None else deltas.over(bucket):
            logits[:bucket].copy_(self._compute(bucket))

    def record_all(self, logits: torch.Tensor, deltas: RecordedDeltas | None) -> dict[int, Replay]:
        """Replays by bucket, smallest first, that leave logits, with or without changes of weights.

        The largest is recorded first: the others find room in the memory that it took. Raises what recording
        raises.
        """
        with torch.inference_mode():
            replays = {
                bucket: self.record(partial(self._compute_into, logits, deltas, bucket))
                for bucket in reversed(self.buckets)
            }
        return dict(sorted(replays.items()))


@dataclass(frozen=True, slots=True)
class RecordedSteps:
    """Steps without weight deltas, recorded, and the logits that they leave."""

    recording: Recording
    logits: torch.Tensor
    replays: Mapping[int, Replay]

    def forward(self) -> DecodeForward:
        """What replays them."""
        of = self.recording
        return DecodeForward(of.eager, of.cache, of.buffers, self.replays, self.logits)

    def forward_with(self, deltas: RecordedDeltas) -> DecodeForward:
        """The same, and steps with weight deltas, recorded now. Raises what recording raises."""
        of = self.recording
        delta_replays = of.record_all(self.logits, deltas)
        return DecodeForward(
            of.eager, of.cache, of.buffers, self.replays, self.logits, delta_replays=delta_replays, deltas=deltas
        )
