"""ResidentAdapters: the adapters in memory, within a budget of bytes. Knows no store, no names and no lock."""

from collections import OrderedDict
from dataclasses import dataclass

from adapters.weights import Adapter


@dataclass(frozen=True, slots=True)
class Residency:
    """What is in memory at one moment, and what has come and gone since the start."""

    num_adapters: int
    num_bytes: int
    budget_bytes: int
    num_loads: int
    """Adapters that were read from the store."""
    num_evictions: int
    """Adapters that were let go for others."""


class ResidentAdapters:
    """By digest; the least recently used leave first, pinned ones and the newest stay. Each call takes constant time.

    Pinned bytes count against the budget, so pins beyond it leave room for one other adapter at a time.
    """

    def __init__(self, *, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._loose: OrderedDict[str, Adapter] = OrderedDict()  # least recently used first
        self._pinned: dict[str, Adapter] = {}
        self._num_pins: dict[str, int] = {}  # by digest, resident or not; at least 1
        self.num_bytes = 0
        self.num_loads = 0
        self._num_evictions = 0

    def __contains__(self, digest: str) -> bool:
        return digest in self._loose or digest in self._pinned

    def snapshot(self) -> Residency:
        return Residency(
            num_adapters=len(self._pinned) + len(self._loose),
            num_bytes=self.num_bytes,
            budget_bytes=self._budget_bytes,
            num_loads=self.num_loads,
            num_evictions=self._num_evictions,
        )

    @property
    def free_bytes(self) -> int:
        """What may come in before something has to leave; below zero where pins are beyond the budget."""
        return self._budget_bytes - self.num_bytes

    def digests(self) -> list[str]:
        """Everything that is in memory."""
        return [*self._pinned, *self._loose]

    def get(self, digest: str) -> Adapter | None:
        """An adapter that is in memory, which is now the one used last."""
        if digest in self._loose:
            self._loose.move_to_end(digest)
            return self._loose[digest]
        return self._pinned.get(digest)

    def keep(self, adapter: Adapter) -> None:
        """Take an adapter in, and let go of as many as its bytes need."""
        digest = adapter.manifest.digest
        self.drop(digest)
        self.num_bytes += adapter.injection.num_bytes
        if digest in self._num_pins:
            self._pinned[digest] = adapter
        else:
            self._loose[digest] = adapter
        while self.num_bytes > self._budget_bytes and self._loose:
            oldest = next(iter(self._loose))
            if oldest == digest:
                return
            self.drop(oldest)
            self._num_evictions += 1

    def drop(self, digest: str) -> None:
        """Let go of an adapter, if it is in memory; its pins stay."""
        adapter = self._loose.pop(digest, None) or self._pinned.pop(digest, None)
        if adapter is not None:
            self.num_bytes -= adapter.injection.num_bytes

    def pin(self, digest: str) -> None:
        """One more name keeps a digest resident, from now on or as soon as it is taken in."""
        self._num_pins[digest] = self._num_pins.get(digest, 0) + 1
        if (adapter := self._loose.pop(digest, None)) is not None:
            self._pinned[digest] = adapter

    def unpin(self, digest: str) -> None:
        """One name less; without any, the adapter is the next to leave, unless it is used before."""
        self._num_pins[digest] -= 1
        if self._num_pins[digest] == 0:
            del self._num_pins[digest]
            if (adapter := self._pinned.pop(digest, None)) is not None:
                self._loose[digest] = adapter
                self._loose.move_to_end(digest, last=False)
