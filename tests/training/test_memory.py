"""Freed memory goes back to the system."""

import sys
from pathlib import Path

import pytest
import torch

from training.memory import give_back


def _resident() -> int:
    """In bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux how much memory is held")
def test_what_is_freed_is_given_back() -> None:
    small = [torch.ones(1 << 14) for _ in range(2000)]  # 64 KiB each: kept by the allocator when they are freed
    kept = small[1::50]  # what lies between them
    del small
    before = _resident()
    give_back(torch.device("cpu"))
    assert _resident() < before - (32 << 20)
    assert len(kept) == 40


def test_nothing_is_done_for_other_devices() -> None:
    give_back(torch.device("meta"))
