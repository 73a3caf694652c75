"""Where recorded steps find the low-rank factors of the adapters of a step. Knows no kernel and no model."""

from collections.abc import Sequence as Items

import numpy as np
import torch

from adapters.injections import LowRank, ModuleDelta
from server.engine.cuda.low_rank import LARGEST_RANK, LowRankTable
from server.engine.placed_deltas import PlacedDelta, PlacedDeltas
from server.engine.placing import refill
from server.engine.step_inputs import DeltaRows

_SLOT_MULTIPLE = 8
"""So that each module's part of a table begins at a multiple of 16 bytes."""


class DeltaTables:
    """Tensors whose addresses never change: the slot of each row, and each module's factors by slot.

    An adapter keeps its slot from step to step, so the tables are sent anew only where adapters come. They hold no
    adapter: a slot of one that went is told by its serial, which no other has.
    """

    def __init__(self, paths: Items[str], *, num_rows: int, placed: PlacedDeltas, device: torch.device) -> None:
        """For steps of up to `num_rows` rows, which may be of as many adapters."""
        self._placed = placed
        self._numbers = {path: number for number, path in enumerate(paths)}
        num_slots = -(-num_rows // _SLOT_MULTIPLE) * _SLOT_MULTIPLE
        self._slot_of: dict[int, int] = {}  # by serial
        self._host_addresses = np.zeros((len(paths), num_slots, 2), dtype=np.int64)
        self._host_ranks = np.zeros((len(paths), num_slots), dtype=np.int32)
        self._addresses = torch.zeros(self._host_addresses.shape, dtype=torch.int64, device=device)
        self._ranks = torch.zeros(self._host_ranks.shape, dtype=torch.int32, device=device)
        self._slots = torch.full((num_rows,), -1, dtype=torch.int32, device=device)

    @property
    def paths(self) -> frozenset[str]:
        """The modules that may be changed."""
        return frozenset(self._numbers)

    def leave_out(self, paths: Items[str]) -> None:
        """These modules may not be changed any more."""
        for path in paths:
            self._numbers.pop(path, None)

    def slots(self, num_rows: int) -> torch.Tensor:
        """`[num_rows]`, int32."""
        return self._slots[:num_rows]

    def table_of(self, path: str) -> LowRankTable:
        number = self._numbers[path]
        return LowRankTable(self._addresses[number], self._ranks[number])

    def fill(self, deltas: Items[DeltaRows]) -> list[PlacedDelta] | None:
        """Take the adapters of a step; None where one has what is not recorded, and then nothing has changed.

        What is given has to be held until the step has been launched.
        """
        placed = [self._placed.of(each.delta) for each in deltas]
        new = [each for each in placed if each.serial not in self._slot_of]
        if not all(self._is_recorded(each) for each in new):
            return None
        if new:
            self._take(new, {each.serial for each in placed})
        slots = np.full(len(self._slots), -1, dtype=np.int32)
        for each, rows in zip(placed, (each.rows for each in deltas), strict=True):
            slots[rows] = self._slot_of[each.serial]
        refill(self._slots, slots)
        return placed

    def _is_recorded(self, delta: PlacedDelta) -> bool:
        return all(path in self._numbers and _is_low(change) for path, change in delta.modules.items())

    def _take(self, new: list[PlacedDelta], wanted: set[int]) -> None:
        """Give each new adapter a slot, the free ones first, then those that this step has no use for."""
        free = sorted(set(range(self._host_ranks.shape[1])) - set(self._slot_of.values()))
        idle = [serial for serial in self._slot_of if serial not in wanted]  # the longest known first
        for delta in new:
            slot = free.pop(0) if free else self._slot_of.pop(idle.pop(0))
            self._slot_of[delta.serial] = slot
            self._host_ranks[:, slot] = 0
            for path, change in delta.modules.items():
                assert isinstance(change, LowRank), "`_is_recorded` says so"
                assert change.down.is_contiguous()
                assert change.up.is_contiguous()
                number = self._numbers[path]
                self._host_addresses[number, slot] = change.down.data_ptr(), change.up.data_ptr()
                self._host_ranks[number, slot] = change.down.shape[0]
        refill(self._addresses, self._host_addresses)
        refill(self._ranks, self._host_ranks)


def _is_low(change: ModuleDelta) -> bool:
    return isinstance(change, LowRank) and change.down.shape[0] <= LARGEST_RANK
