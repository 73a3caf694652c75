"""How much memory a process takes above a state that it was in. Measures this process only."""

import resource
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

_ELEMENTS_PER_PAGE = 512
_KIB = 1024


class PeakMemory:
    """The highest that memory rises: above what the process held when this was made (a model, loaded and touched),
    and all in all.

    On CUDA the tensors of the device; elsewhere resident memory, by the kernel's high-water mark, which is set back
    first where the kernel lets us.
    """

    def __init__(self, parameters: Sequence[torch.Tensor], device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._start = self._before = torch.cuda.memory_allocated(device)
            return
        for parameter in parameters:  # weights lie in files until somebody reads them
            parameter.detach().flatten()[::_ELEMENTS_PER_PAGE].float().sum()
        self._before = _high_water()
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._start = _high_water()

    def whole(self) -> int:
        """In bytes: everything that the process ever held, loading the model included."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return max(self._before, _high_water())

    def above(self) -> int:
        """In bytes; never below 0, where the kernel's count of pages is rounded."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._start
        return max(0, _high_water() - self._start)


def _high_water() -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * _KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
