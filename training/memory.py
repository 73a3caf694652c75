"""Gives memory that the allocator holds back to the system. Knows no tensors and no models."""

import ctypes
import sys
from functools import cache

import torch


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
