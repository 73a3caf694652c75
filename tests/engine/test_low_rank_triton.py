"""The Triton kernel's indexing, by Triton's interpreter on the CPU, where there is a Triton."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).parents[2]
_OLDEST = Version("3.7")


def _missing() -> str | None:
    """Why there is no interpreter here that runs with the numpy of today."""
    try:
        found = Version(version("triton"))
    except PackageNotFoundError:
        return "no Triton here: this torch has no CUDA"
    return None if found >= _OLDEST else f"Triton {found}'s interpreter does not run with numpy 2.4; {_OLDEST} does"


def test_interpreted_it_adds_what_it_should() -> None:
    if reason := _missing():
        pytest.skip(reason)
    run = subprocess.run(
        [sys.executable, "-m", "tests.engine.triton_interpreted"],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout) == (0, "right"), run.stderr
