"""Where a step's tokens and their sequences' keys lie, as a kernel for paged attention is told. Knows no layers."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from server.engine.batch import Batch
from server.engine.placing import placed, placed_together
from server.engine.step_layout import block_tables, packed_positions


@dataclass(frozen=True, slots=True)
class Pages:
    """N sequences with T new tokens among them; a page is a block of the cache. All but `new_slots` is int32."""

    new_slots: torch.Tensor
    """`[T]`, int64: where each new token's own KV goes."""
    query_offsets: torch.Tensor
    """`[N + 1]`: the first packed row of each sequence, and the end."""
    key_offsets: torch.Tensor
    """`[N + 1]`: the same for keys, if all of them lay packed."""
    num_keys: torch.Tensor
    """`[N]`: keys of each sequence, its new ones among them."""
    tables: torch.Tensor
    """`[N, P]`: its pages; beyond its keys, any."""
    most_queries: int
    most_keys: int

    @classmethod
    def of(cls, batch: Batch, *, block_size: int, device: torch.device) -> "Pages":
        """The pages of a batch whose items are packed in order."""
        counts = np.array([item.num_tokens for item in batch.items])
        stops = np.array([item.stop for item in batch.items])
        tables = block_tables(batch.items, -(-int(stops.max()) // block_size))
        rows = np.repeat(np.arange(len(counts)), counts)
        slots = slots_at(tables, rows, packed_positions(batch), block_size=block_size)
        arrays = [offsets(counts), offsets(stops), stops, tables]
        query_offsets, key_offsets, num_keys, placed_tables = placed_together(arrays, torch.int32, device)
        return cls(
            placed(slots, torch.int64, device),
            query_offsets,
            key_offsets,
            num_keys,
            placed_tables,
            most_queries=int(counts.max()),
            most_keys=int(stops.max()),
        )


def offsets(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where each of N runs of so many begins, and where the last one ends: `[N + 1]`."""
    return np.concatenate([np.zeros(1, dtype=np.int64), counts.cumsum()])


def slots_at(
    tables: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], positions: npt.NDArray[np.int64], *, block_size: int
) -> npt.NDArray[np.int64]:
    """The cache's slots `[T]` of positions in the sequences that have these rows of the tables `[N, P]`."""
    slots: npt.NDArray[np.int64] = tables[rows, positions // block_size] * block_size + positions % block_size
    return slots
