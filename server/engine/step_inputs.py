"""What goes into a step beside its batch: embeddings, deltas of rows, KV that is given. Knows no model, no cache."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from adapters.injections import KVRows, WeightDelta


@dataclass(frozen=True, slots=True)
class DeltaRows:
    """The packed rows that an adapter changes the weights for: `rows` `[N]`, ascending, at least one."""

    delta: WeightDelta
    rows: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StepInputs:
    """Embeddings `[T, hidden_size]` of a batch's tokens in order, and what changes the weights for some of their rows.

    Each adapter stands in `deltas` once, and each row is of one adapter at most.
    """

    embeddings: torch.Tensor
    deltas: tuple[DeltaRows, ...] = ()


@dataclass(frozen=True, slots=True)
class KVPlacement:
    """The positions `[start, stop)` of a sequence are to hold what `source` has for them, row by row.

    Position p lies in block `blocks[p // block_size]`, which is the sequence's own.
    """

    source: KVRows
    start: int
    stop: int
    blocks: tuple[int, ...]
