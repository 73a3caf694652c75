"""The course of the learning rate: no step at 0, and a course that a clock goes through."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.tiny import Family
from tests.training.rows import ENGLISH, tiny_config, write_jsonl
from training.errors import ConfigError
from training.run import train
from training.schedule import Clock, by_the_clock, one_step_on


class Now:
    """A time that the test sets."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_a_course_goes_by_the_clock_or_by_its_steps_whichever_is_further() -> None:
    now = Now()
    clock = Clock(10.0, now=now)
    rate = by_the_clock(float, steps=20, clock=clock)
    assert rate(3) == 3  # not started
    clock.start()
    now.seconds += 5
    assert clock.share_gone == 0.5
    assert rate(3) == 10
    assert rate(15) == 15
    now.seconds += 50
    assert clock.share_gone == 1
    assert rate(3) == 20


def test_a_warm_up_without_its_first_step() -> None:
    assert [one_step_on(lambda step: step / 4)(step) for step in range(3)] == [0.25, 0.5, 0.75]


def _rates(base: Path, tmp_path: Path, **settings: Any) -> list[float]:
    """The learning rate behind each logged step, and a mark for each held-out loss."""
    config = tiny_config(base, tmp_path, run_dir=tmp_path / "run", logging_steps=1, **settings)
    train(config, console=Console(file=io.StringIO()))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    return [line["learning_rate"] for line in lines if "learning_rate" in line]


def test_the_first_step_of_a_warm_up_and_the_last_of_all_learn(tmp_path: Path, bases: dict[Family, Path]) -> None:
    rates = _rates(bases["llama"], tmp_path, max_steps=6, warmup_steps=2, lr_scheduler_type="linear", learning_rate=1.0)
    assert rates == pytest.approx([0.5, 1.0, 0.8, 0.6, 0.4, 0.2])


def test_a_run_without_warm_up_has_the_recipes_rates(tmp_path: Path, bases: dict[Family, Path]) -> None:
    rates = _rates(bases["llama"], tmp_path, max_steps=4, warmup_steps=0, lr_scheduler_type="linear", learning_rate=1.0)
    assert rates == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_a_run_ends_when_its_time_is_up_and_is_measured_there(tmp_path: Path, bases: dict[Family, Path]) -> None:
    held_out = write_jsonl(tmp_path / "held_out.jsonl", ENGLISH[:3])
    config = tiny_config(
        bases["llama"],
        tmp_path,
        run_dir=tmp_path / "run",
        eval_data=held_out,
        max_steps=100_000,
        max_minutes=0.01,
        learning_rate=1e-3,
        early_stopping_patience=0,
    )
    result = train(config, console=Console(file=io.StringIO()))
    assert result.manifest.training is not None
    steps = result.manifest.training.steps
    assert 1 <= steps < 100_000
    assert not result.interrupted
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any(line["step"] == steps and "held_out_loss" in line for line in lines)


def test_a_clock_and_checkpoints_exclude_each_other(tmp_path: Path, bases: dict[Family, Path]) -> None:
    from training.config_reading import load_train_config

    flags = {"base": str(bases["llama"]), "data": "rows.jsonl", "name": "x", "max_minutes": "5"}
    assert load_train_config(None, [], flags).max_minutes == 5
    with pytest.raises(ConfigError, match="checkpoint_dir: excludes max_minutes"):
        load_train_config(None, [f"checkpoint_dir={tmp_path}"], flags)
