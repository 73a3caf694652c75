"""How much memory the KV cache takes where nobody said. Knows no layers."""

from pathlib import Path

import torch

DEFAULT_KV_CACHE_BYTES = 1 << 30


def default_kv_cache_bytes(device: torch.device) -> int:
    """On CUDA half of the free memory; on the CPU 1 GiB, or a quarter of the free memory if that is less.

    To be asked when the model's weights are in memory.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free // 2
    return min(DEFAULT_KV_CACHE_BYTES, _available_memory() // 4)


def _available_memory() -> int:
    """Bytes that can be had without swapping, as Linux reckons; elsewhere enough for the default."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return DEFAULT_KV_CACHE_BYTES * 4
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return kilobytes * 1024
