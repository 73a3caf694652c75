"""How fast a device reads and writes its memory. Knows no model."""

import time

import torch

from benchmarks.percentiles import median

_BYTES = {"cuda": 1 << 30, "cpu": 256 << 20}
"""Far more than any cache holds."""
_COPIES = 10


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second, read and written, of copying a large tensor: the median of ten copies."""
    source = torch.ones(_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    seconds = []
    for _ in range(_COPIES):
        _finish(device)
        started = time.perf_counter()
        target.copy_(source)
        _finish(device)
        seconds.append(time.perf_counter() - started)
    return 2 * source.nbytes / median(seconds)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
