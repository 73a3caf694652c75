"""Keeps what libraries hold beside tensors small: freed pages, compiled kernels. Knows no tensors and no models."""

import ctypes
import os
import sys
from functools import cache

import torch

_KERNELS = "32"
"""A pack multiplies about 15 shapes, in every layer the same: twice as many, and none is compiled again in a pack."""


def keep_few_kernels() -> None:
    """Bound what oneDNN keeps on a CPU: a compiled kernel for each shape, and each pack has shapes of its own.

    The default of 1,024 of them grew by 8 MiB a pack, and hardly any was of use to a later one. It counts if it is set
    before the process multiplies its first matrices; what the environment says already stays.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _KERNELS)  # oneDNN's own
    os.environ.setdefault("LRU_CACHE_CAPACITY", _KERNELS)  # that of PyTorch's layer over it


def give_back(device: torch.device) -> None:
    """Return freed pages to the system where glibc's allocator keeps them; elsewhere, and on CUDA, do nothing.

    Packs differ in size, so what one leaves behind fits the next one badly: without this, a step's high-water mark
    grows by half over a run.
    """
    if device.type == "cpu":
        _trim()


def _trim() -> None:
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None
