"""`from training import TrainConfig, train`: the names that Python users have."""

import subprocess
import sys
from pathlib import Path

import pytest

import training
from tests.tiny import Family
from tests.training.rows import ENGLISH, write_jsonl
from training import TrainConfig, TrainResult, load_train_config, train


def test_a_run_from_python_is_silent_and_returns_what_it_made(
    tmp_path: Path, bases: dict[Family, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", ENGLISH)
    config = TrainConfig(
        base=str(bases["llama"]),
        data=(str(rows),),
        name="mine",
        store=tmp_path / "store",
        run_dir=tmp_path / "run",
        max_steps=2,
        logging_steps=1,
        dtype="float32",
        device="cpu",
    )
    capfd.readouterr()
    result = train(config)
    assert isinstance(result, TrainResult)
    assert len(result.losses) == 2
    assert result.manifest.name == "mine"
    assert "step" not in capfd.readouterr().out
    assert load_train_config(tmp_path / "run" / "config.yaml") == config


def test_the_names_are_all_there_and_no_others() -> None:
    assert all(hasattr(training, name) for name in training.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        training.__getattr__("trian")


def test_the_package_imports_nothing_heavy() -> None:
    program = "import sys, training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
