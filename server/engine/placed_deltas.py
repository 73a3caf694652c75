"""Keeps adapters' weight deltas where and in the dtype in which a model computes. Knows no model and no rows."""

import weakref
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, count

import torch

from adapters.injections import InputScale, LowRank, ModuleDelta, OutputScale, WeightDelta
from server.engine.placing import placed

_BUDGET_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class PlacedDelta:
    """A delta's modules, their tensors where and in the dtype in which the model computes.

    `serial` is of this placing, and of no other: where a delta is sent again, it has another one. Tensors lie in one
    piece each, at multiples of 16 bytes.
    """

    serial: int
    modules: Mapping[str, ModuleDelta]


@dataclass(frozen=True, slots=True)
class _Entry:
    delta: "weakref.ref[WeightDelta]"
    placed: PlacedDelta
    num_bytes: int


class PlacedDeltas:
    """Tensors are sent once for each adapter, and go when nobody holds the adapter any more, or for want of room.

    Where the model computes in float32 on the CPU, they are the adapter's own and take no room.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, *, budget_bytes: int = _BUDGET_BYTES) -> None:
        self._device = device
        self._dtype = dtype
        self._budget_bytes = budget_bytes
        self._entries: OrderedDict[int, _Entry] = OrderedDict()  # by the adapter's identity, least recently used first
        self._serials = count()

    @property
    def num_bytes(self) -> int:
        return sum(entry.num_bytes for entry in list(self._entries.values()))

    def of(self, delta: WeightDelta) -> PlacedDelta:
        """The delta on the model's device and in its dtype."""
        key = id(delta)
        entry = self._entries.pop(key, None)
        if entry is None:
            entry = self._sent(delta)
            self._make_room(entry.num_bytes)
        self._entries[key] = entry
        return entry.placed

    def _sent(self, delta: WeightDelta) -> _Entry:
        """All tensors go in one piece; an adapter that nobody holds takes its entry with it, in whatever thread."""
        key, entries = id(delta), self._entries
        reference = weakref.ref(delta, lambda _: entries.pop(key, None))
        if self._device.type == "cpu" and self._dtype == torch.float32:
            return _Entry(reference, PlacedDelta(next(self._serials), delta.modules), 0)
        tensors = list(chain.from_iterable(change.tensors for change in delta.modules.values()))
        sizes = [_padded(tensor.numel()) for tensor in tensors]
        on_host = torch.zeros(sum(sizes))
        for part, tensor in zip(on_host.split(sizes), tensors, strict=True):
            part[: tensor.numel()] = tensor.flatten()
        flat = placed(on_host, self._dtype, self._device)
        parts = iter(flat.split(sizes))
        modules = {path: _over(change, [next(parts) for _ in change.tensors]) for path, change in delta.modules.items()}
        return _Entry(reference, PlacedDelta(next(self._serials), modules), flat.numel() * flat.element_size())

    def _make_room(self, num_bytes: int) -> None:
        """Forget the least recently used; what a step is using stays alive in its hands."""
        while self._entries and self.num_bytes + num_bytes > self._budget_bytes:
            self._entries.popitem(last=False)


def _padded(num_elements: int) -> int:
    """Tensors of 2 bytes and more begin at multiples of 16 bytes."""
    return -(-num_elements // 8) * 8


def _over(change: ModuleDelta, parts: list[torch.Tensor]) -> ModuleDelta:
    """The same change over other tensors, which lie flat, and are padded."""
    tensors = [part[: tensor.numel()].view(tensor.shape) for part, tensor in zip(parts, change.tensors, strict=True)]
    match change:
        case LowRank():
            return LowRank(*tensors)
        case InputScale():
            return InputScale(*tensors)
        case OutputScale():
            return OutputScale(*tensors)
