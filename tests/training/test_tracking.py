"""Experiment trackers: TensorBoard's files are read back, and what fails is said with the key's name."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from tests.tiny import Family
from tests.training.rows import ENGLISH, tiny_config, write_jsonl
from training.config import TrainConfig
from training.config_reading import load_train_config
from training.errors import ConfigError, TrainingError
from training.run import train
from training.trackers import MODULES, Tracker
from training.tracking import Trackers


def _scalars(run: Path) -> Mapping[str, dict[int, float]]:
    """Each tag's values by step, as TensorBoard shows them."""
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {tag: {each.step: each.value for each in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def _run(config: TrainConfig, output: io.StringIO | None = None) -> Any:
    return train(config, console=Console(file=output or io.StringIO()))


def test_the_names_are_those_of_transformers() -> None:
    assert set(get_args(Tracker)) == set(INTEGRATION_TO_CALLBACK)


def test_tensorboard_is_told_what_the_run_measures(tmp_path: Path, bases: dict[Family, Path]) -> None:
    held_out = write_jsonl(tmp_path / "held.jsonl", ENGLISH[:4])
    result = _run(tiny_config(bases["llama"], tmp_path, eval_data=held_out, report_to="tensorboard"))
    facts = result.manifest.training
    told = _scalars(tmp_path / "run")
    assert told["train/loss"] == pytest.approx({point.step: point.loss for point in result.losses})
    assert sorted(told["train/learning_rate"]) == sorted(told["train/tokens_per_second"]) == [1, 2, 3]
    assert min(told["train/tokens_per_second"].values()) > 0
    assert sorted(told["eval/loss"]) == [0, 1, 2, 3]
    assert told["eval/loss"][0] == pytest.approx(facts.evaluation.loss_before)
    assert facts.evaluation.loss_after in [pytest.approx(value) for value in told["eval/loss"].values()]
    scores = {score.name for score in facts.evaluation.scores} | {"exact_match"}
    assert {f"eval/{name}" for name in scores} <= told.keys()


def test_a_run_that_goes_on_goes_on_in_the_same_files(
    tmp_path: Path, bases: dict[Family, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTPROMPT_HOME", str(tmp_path / "home"))
    config = tiny_config(
        bases["llama"],
        tmp_path,
        run_dir=None,
        checkpoint_dir=tmp_path / "checkpoints",
        save_steps=2,
        max_steps=6,
        report_to="tensorboard",
    )

    class PowerLoss(Exception):
        pass

    def lost(self: Any, event: str, state: Any, **facts: Any) -> None:
        usual(self, event, state, **facts)
        if event == "on_log" and state.global_step == 5:
            raise PowerLoss

    usual = Trackers.tell
    with monkeypatch.context() as patch:
        patch.setattr(Trackers, "tell", lost)
        with pytest.raises(PowerLoss):
            _run(config)
    (run,) = (tmp_path / "home" / "runs").iterdir()
    assert sorted(_scalars(run)["train/loss"]) == [1, 2, 3, 4, 5]
    resumed = _run(config)
    assert list((tmp_path / "home" / "runs").iterdir()) == [run]
    told = _scalars(run)["train/loss"]
    assert told == pytest.approx({point.step: point.loss for point in resumed.losses})
    assert sorted(told) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("value", "names"),
    [("none", ()), ("mlflow, wandb,mlflow", ("mlflow", "wandb")), (["tensorboard"], ("tensorboard",))],
)
def test_several_names_and_none(value: object, names: tuple[str, ...]) -> None:
    assert load_train_config(None, [], {"name": "x", "data": "rows.jsonl", "report_to": value}).report_to == names


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("tensorbord", r"report_to: 'tensorbord' is not supported \(supported: .*'tensorboard'"),
        ("all", "report_to: 'all' is not supported"),
        ("none,wandb", "report_to: 'none' stands alone"),
    ],
)
def test_an_unknown_name_is_refused(value: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_train_config(None, [], {"name": "x", "data": "rows.jsonl", "report_to": value})


def test_a_tracker_that_is_not_installed_is_named_before_anything_is_read(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "no-base", tmp_path, report_to="neptune,clearml")
    with pytest.raises(ConfigError) as caught:
        _run(config)
    assert caught.value.problems == (
        "report_to: neptune is not installed: pip install neptune",
        "report_to: clearml is not installed: pip install clearml",
    )


class Failing(TrainerCallback):
    """A tracker whose server is gone when `event` comes."""

    def __init__(self, event: str) -> None:
        self._event = event

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs
        if self._event == "on_train_begin":
            raise ConnectionError("no server")

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs
        if self._event == "on_log":
            raise ConnectionError("no server")


def _with_failing(patch: pytest.MonkeyPatch, event: str) -> None:
    patch.setitem(INTEGRATION_TO_CALLBACK, "mlflow", lambda: Failing(event))
    patch.setitem(MODULES, "mlflow", "json")


def test_a_tracker_that_cannot_begin_ends_the_run(
    tmp_path: Path, bases: dict[Family, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_failing(monkeypatch, "on_train_begin")
    with pytest.raises(TrainingError, match="report_to: mlflow cannot be used: no server"):
        _run(tiny_config(bases["llama"], tmp_path, report_to="mlflow"))


def test_a_tracker_that_fails_later_costs_no_adapter(
    tmp_path: Path, bases: dict[Family, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_failing(monkeypatch, "on_log")
    output = io.StringIO()
    result = _run(tiny_config(bases["llama"], tmp_path, report_to="mlflow,tensorboard"), output)
    assert output.getvalue().count("warning: report_to: mlflow failed, and is told no more: no server") == 1
    assert sorted(_scalars(tmp_path / "run")["train/loss"]) == [point.step for point in result.losses]
