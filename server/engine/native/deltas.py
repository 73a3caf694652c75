"""Weight deltas as the native decoder has them: packed once for each adapter. Knows no batches and checks no shapes."""

import ctypes
import weakref
from collections.abc import Iterable
from ctypes import c_int32, c_void_p

from adapters.injections import InputScale, LowRank, ModuleDelta, OutputScale, WeightDelta


class PackedDelta:
    """One adapter's deltas in the library's memory, freed with this object."""

    def __init__(self, delta: WeightDelta, *, library: ctypes.CDLL, model: c_void_p, paths: Iterable[str]) -> None:
        """`delta` fits the modules `paths`, in decoder.cpp's order. `model` has to be there only meanwhile."""
        library.hotprompt_delta_new.restype = c_void_p
        self._library = library
        self.handle = c_void_p(library.hotprompt_delta_new(model))
        for number, path in enumerate(paths):
            if path in delta.modules:
                self._set(model, number, delta.modules[path])

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            self._library.hotprompt_delta_free(self.handle)

    def _set(self, model: c_void_p, number: int, change: ModuleDelta) -> None:
        place = (model, self.handle, c_int32(number))
        tensors = [tensor.float().contiguous() for tensor in change.tensors]  # alive until they are copied
        addresses = [c_void_p(tensor.data_ptr()) for tensor in tensors]
        match change:
            case LowRank():
                self._library.hotprompt_delta_add(*place, *addresses, c_int32(change.down.shape[0]))
            case InputScale():
                self._library.hotprompt_delta_scale_inputs(*place, *addresses)
            case OutputScale():
                self._library.hotprompt_delta_scale_outputs(*place, *addresses)


class PackedDeltas:
    """The packed form of the weight deltas that steps have used; each goes when nobody holds its delta any more."""

    def __init__(self, library: ctypes.CDLL, model: c_void_p, paths: Iterable[str]) -> None:
        self._library = library
        self._model = model
        self._paths = tuple(paths)
        self._packed: dict[int, PackedDelta] = {}  # by id of the delta, which is its own as long as it lives

    def __contains__(self, delta: WeightDelta) -> bool:
        return id(delta) in self._packed

    def __len__(self) -> int:
        return len(self._packed)

    def of(self, delta: WeightDelta) -> PackedDelta:
        """Packed at the first call, some milliseconds. `delta` fits; whoever uses what is given holds it meanwhile."""
        found = self._packed.get(id(delta))
        if found is None:
            found = PackedDelta(delta, library=self._library, model=self._model, paths=self._paths)
            self._packed[id(delta)] = found
            weakref.finalize(delta, self._packed.pop, id(delta), None)
        return found
