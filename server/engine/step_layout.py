"""Where a step's tokens lie, in the packed row and in the cache, and which keys each of them sees. Knows no layers."""

from collections.abc import Sequence as Items
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from server.engine.batch import Batch, ScheduledSequence
from server.engine.placing import placed_together


@dataclass(frozen=True, slots=True)
class Reach:
    """How far back a query sees: to the start, its last `window` keys, or the keys since its `chunk` began."""

    window: int | None = None
    chunk: int | None = None

    def sees(self, keys: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Whether a query at `positions` sees the keys at positions `keys`. Shapes broadcast."""
        seen = keys <= positions
        if self.window is not None:
            seen = seen & (keys > positions - self.window)
        if self.chunk is not None:
            seen = seen & (keys >= positions - positions % self.chunk)
        return seen


SEES_ALL = Reach()


@dataclass(frozen=True, slots=True)
class Chunk:
    """One sequence's tokens: rows `[first_row, last_row)` of the packed step, keys at `slots` `[S]`."""

    first_row: int
    last_row: int
    start: int
    slots: torch.Tensor

    def positions(self) -> torch.Tensor:
        """Positions of the queries, `[L, 1]`."""
        length = self.last_row - self.first_row
        return torch.arange(self.start, self.start + length, device=self.slots.device)[:, None]


@dataclass(frozen=True, slots=True)
class SingleTokens:
    """The sequences that compute one token.

    Their packed rows `[B]`, key slots `[B, S]` (beyond a sequence's end, its own last slot: a masked key must hold a
    number too, and no neighbour's), and positions `[B, 1]` of their queries.
    """

    rows: torch.Tensor
    slots: torch.Tensor
    positions: torch.Tensor


@dataclass(frozen=True, slots=True)
class StepLayout:
    """Where the tokens of a step are: in the packed row, and in the cache."""

    new_slots: torch.Tensor  # [T], where each token's own KV goes
    single: SingleTokens | None
    chunks: tuple[Chunk, ...]
    _masks: dict[tuple[Reach, int | None], torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, batch: Batch, *, block_size: int, device: torch.device) -> "StepLayout":
        """Lay out a batch whose items are packed in order."""
        new_slots = np.empty(batch.num_tokens, dtype=np.int64)
        longer, singles, rows, row = [], [], [], 0
        for item in batch.items:
            if item.num_tokens == 1:
                singles.append(item)
                rows.append(row)
            else:
                slots = _slots([item], block_size)[0]
                new_slots[row : row + item.num_tokens] = slots[item.start :]
                longer.append((row, item, slots))
            row += item.num_tokens
        arrays = []
        if singles:
            slots = _slots(singles, block_size)
            new_slots[rows] = slots[:, -1]  # its newest token's slot fills each row up
            arrays = [np.array(rows), slots, np.array([item.start for item in singles])[:, None]]
        sent = placed_together([new_slots, *(slots for _, _, slots in longer), *arrays], torch.int64, device)
        return cls(
            sent[0],
            SingleTokens(*sent[1 + len(longer) :]) if singles else None,
            tuple(
                Chunk(row, row + item.num_tokens, item.start, slots)
                for (row, item, _), slots in zip(longer, sent[1 : 1 + len(longer)], strict=True)
            ),
        )

    def single_mask(self, reach: Reach) -> torch.Tensor:
        """Which keys each single query sees, `[B, S]`."""
        assert self.single is not None, "asked for only where there are single tokens"
        key = (reach, None)
        if key not in self._masks:
            keys = torch.arange(self.single.slots.shape[1], device=self.single.slots.device)[None, :]
            self._masks[key] = reach.sees(keys, self.single.positions)
        return self._masks[key]

    def chunk_mask(self, index: int, reach: Reach) -> torch.Tensor:
        """Which keys each query of a chunk sees, `[L, S]`."""
        key = (reach, index)
        if key not in self._masks:
            chunk = self.chunks[index]
            keys = torch.arange(chunk.slots.shape[0], device=chunk.slots.device)[None, :]
            self._masks[key] = reach.sees(keys, chunk.positions())
        return self._masks[key]


def packed_positions(batch: Batch) -> npt.NDArray[np.int64]:
    """Positions `[T]` of a batch's tokens in their sequences."""
    return np.concatenate([np.arange(item.start, item.stop) for item in batch.items])


def block_tables(items: Items[ScheduledSequence], num_columns: int) -> npt.NDArray[np.int64]:
    """The items' first blocks, `[N, num_columns]`; beyond a sequence's last one stands block 0, not to be read."""
    tables = np.zeros((len(items), num_columns), dtype=np.int64)
    for row, item in zip(tables, items, strict=True):
        table = item.sequence.block_table[:num_columns]
        row[: len(table)] = table
    return tables


def _slots(items: Items[ScheduledSequence], block_size: int) -> npt.NDArray[np.int64]:
    """Slots `[N, S]` of each item's positions `[0, stop)`; S is the longest stop, and others repeat their last slot."""
    stops = np.array([item.stop for item in items])
    tables = block_tables(items, -(-int(stops.max()) // block_size))
    slots = (tables[:, :, None] * block_size + np.arange(block_size)).reshape(len(items), -1)[:, : stops.max()]
    last = slots[np.arange(len(items)), stops - 1]
    return np.where(np.arange(slots.shape[1]) < stops[:, None], slots, last[:, None])
