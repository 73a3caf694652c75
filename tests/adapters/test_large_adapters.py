"""Adapters of tens of megabytes: in memory once while they are published, and within the budget afterwards."""

import gc
from pathlib import Path

import pytest

from adapters.registry import AdapterRegistry
from adapters.store import AdapterStore
from adapters.weights import read_adapter
from tests.adapters.making import base_identity, large_lora_files

FILE_BYTES = 64 << 20
MARGIN = FILE_BYTES // 4


def _resident_bytes(field: str) -> int:
    """VmRSS, or VmHWM: its highest value since it was reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells a process's peak")
def test_publishing_reads_the_weights_once(tmp_path: Path) -> None:
    """Beside the uploaded bytes there are the tensors in float32, twice the size of bfloat16, and no copy of either."""
    registry = AdapterRegistry(AdapterStore(tmp_path), base_identity())
    files = large_lora_files(rank=64, num_bytes=FILE_BYTES)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _resident_bytes("VmRSS")
    adapter = read_adapter("large", files)
    registry.publish("large", files, checked=adapter)
    assert adapter.injection.num_bytes == pytest.approx(2 * FILE_BYTES, rel=0.01)
    assert _resident_bytes("VmHWM") - before < 2 * FILE_BYTES + MARGIN


def test_large_adapters_stay_within_the_budget(tmp_path: Path) -> None:
    budget = 20 << 20
    registry = AdapterRegistry(AdapterStore(tmp_path), base_identity(), budget_bytes=budget)
    for seed in range(4):
        files = large_lora_files(rank=64, num_bytes=4 << 20, seed=seed)  # 8 MiB in float32
        registry.publish(f"large-{seed}", files)
        assert registry.num_bytes <= budget
    for seed in range(4):
        assert registry.get(f"large-{seed}").injection.num_bytes == 8 << 20
        assert registry.num_bytes <= budget
