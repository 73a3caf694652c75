"""The Triton kernel's indexing, by Triton's interpreter on the CPU, where there is a Triton."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton here: this torch has no CUDA")
def test_interpreted_it_adds_what_it_should() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.engine.triton_interpreted"],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout) == (0, "right"), run.stderr
