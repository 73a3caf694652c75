"""Writers that are killed at any moment leave no half adapter, and lose nothing that they acknowledged."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.store import AdapterStore
from tests.adapters.making import adapter_files


@pytest.mark.parametrize("kills", [50, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_killed_writers(tmp_path: Path, kills: int) -> None:
    root = tmp_path / "store"
    AdapterStore(root)
    command = [sys.executable, "-m", "tests.adapters.crashing_writer", str(root), str(kills), str(kills)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=590)
    summary = json.loads(finished.stdout)
    assert summary["problems"] == []
    assert summary["acknowledged"] >= kills / 10, "the writers died too young to prove anything"
    store = AdapterStore(root)
    store.publish("after", adapter_files())
    store.remove("after")
    assert list((root / "tmp").iterdir()) == [], "leftovers of the killed writers are cleared"
    named = {version.digest for record in store.names() for version in record.versions}
    assert {path.name for path in (root / "versions").iterdir()} == named
