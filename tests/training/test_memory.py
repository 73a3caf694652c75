"""Freed memory goes back to the system, and kernels are few."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training.memory import give_back, keep_few_kernels


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


_PRODUCTS = """
from training.memory import keep_few_kernels
keep_few_kernels()
import torch
for _ in range(2):
    for rows in range(100, 140):
        torch.ones(rows, 64, dtype=torch.bfloat16) @ torch.ones(64, 64, dtype=torch.bfloat16)
"""


def test_kernels_of_shapes_that_do_not_come_again_are_dropped() -> None:
    environment = {**os.environ, "ONEDNN_VERBOSE": "profile_create"}
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        environment.pop(name, None)
    command = [sys.executable, "-c", _PRODUCTS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=200)
    compiled = [line for line in done.stdout.splitlines() if "create:cache_miss" in line and "matmul" in line]
    if not compiled:
        pytest.skip("this CPU multiplies bfloat16 without oneDNN")
    assert len(compiled) == 80  # 40 shapes twice: they are more than are kept


def test_what_the_environment_says_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "8")
    keep_few_kernels()
    assert (os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"], os.environ["LRU_CACHE_CAPACITY"]) == ("7", "8")


def test_nothing_is_done_for_other_devices() -> None:
    give_back(torch.device("meta"))
