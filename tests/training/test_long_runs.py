"""Runs that break and go on, that run out of memory, and that keep their best adapter and stop early."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from adapters.store import AdapterStore
from tests.tiny import Family, rows_of
from tests.training.rows import ENGLISH, tiny_config, write_jsonl
from training.best import BestKeeper
from training.config import TrainConfig
from training.errors import ConfigError
from training.run import TrainResult, train
from training.trainer import build_trainer

STEPS = 10


class PowerLoss(Exception):
    """What ends a run in the middle of a step."""


def _run(config: TrainConfig, output: io.StringIO | None = None) -> TrainResult:
    return train(config, console=Console(file=output or io.StringIO()))


def _lose_power(monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    class Plug(TrainerCallback):
        def on_step_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
        ) -> None:
            del args, control, kwargs
            if state.global_step == after:
                raise PowerLoss

    def build(*arguments: Any, **settings: Any) -> Any:
        trainer = build_trainer(*arguments, **settings)
        trainer.add_callback(Plug())
        return trainer

    monkeypatch.setattr("training.loop.build_trainer", build)


def _prompt(result: TrainResult, store: Path) -> torch.Tensor:
    return rows_of(AdapterStore(store).read("x", result.manifest.digest))


@pytest.mark.parametrize("settings", [{}, {"method": "p_tuning", "prompt_tuning_init_text": None}])
def test_a_broken_run_goes_on_to_the_same_curve(
    tmp_path: Path, bases: dict[Family, Path], monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    held_out = write_jsonl(tmp_path / "held_out.jsonl", ENGLISH[:4])
    settings |= {"max_steps": STEPS, "save_steps": 2, "eval_data": held_out, "eval_steps": 3, "learning_rate": 0.05}
    whole = _run(tiny_config(bases["llama"], tmp_path, **settings))
    config = tiny_config(bases["llama"], tmp_path, checkpoint_dir=tmp_path / "run", **settings)
    with monkeypatch.context() as patch:
        _lose_power(patch, after=7)
        with pytest.raises(PowerLoss):
            _run(config)
    torn = tmp_path / "run" / "checkpoint-8"
    torn.mkdir()
    (torn / "trained.safetensors").write_bytes(b"half")
    output = io.StringIO()
    resumed = _run(config, output)
    assert "going on from checkpoint-6" in output.getvalue()
    assert [point.step for point in resumed.losses] == list(range(1, STEPS + 1))
    assert [p.loss for p in resumed.losses] == pytest.approx([p.loss for p in whole.losses], rel=1e-6, abs=1e-6)
    assert torch.allclose(_prompt(resumed, tmp_path / "store"), _prompt(whole, tmp_path / "store"), atol=1e-6)
    assert resumed.manifest.training is not None
    assert whole.manifest.training is not None
    assert resumed.manifest.training.tokens == whole.manifest.training.tokens
    assert list((tmp_path / "run").glob("checkpoint-*")) == []


def test_another_runs_directory_is_refused(
    tmp_path: Path, bases: dict[Family, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"checkpoint_dir": tmp_path / "run", "save_steps": 1, "max_steps": 3}
    with monkeypatch.context() as patch:
        _lose_power(patch, after=2)
        with pytest.raises(PowerLoss):
            _run(tiny_config(bases["llama"], tmp_path, **settings))
    with pytest.raises(ConfigError, match=r"checkpoint_dir: .* holds a run with other settings or data"):
        _run(tiny_config(bases["llama"], tmp_path, **settings, seed=5))
    with pytest.raises(ConfigError, match=r"checkpoint_dir: .* cannot be used"):
        _run(tiny_config(bases["llama"], tmp_path, checkpoint_dir=tmp_path / "rows.jsonl"))


@pytest.mark.slow
def test_kill_9_loses_nothing_before_the_last_checkpoint(tmp_path: Path, bases: dict[Family, Path]) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", ENGLISH)
    settings = {
        "base": bases["llama"],
        "data": rows,
        "name": "killed",
        "store": tmp_path / "store",
        "checkpoint_dir": tmp_path / "run",
        "max_steps": 400,
        "save_steps": 5,
        "dtype": "float32",
        "device": "cpu",
    }
    command = [sys.executable, "-m", "hotprompt", "train"]
    command += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").glob("checkpoint-*/complete")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "going on from checkpoint-" in done.stdout
    assert AdapterStore(tmp_path / "store").resolve("killed")


# -- the best adapter --------------------------------------------------------------------------------------------------


def test_the_best_adapter_is_kept_and_a_run_that_gets_no_better_ends(tmp_path: Path) -> None:
    losses = iter([3.0, 1.0, 2.0, 2.5, 9.0])
    model: Any = torch.nn.Linear(1, 1, bias=False)
    said: list[str] = []
    keeper = BestKeeper(model, lambda: next(losses), every=2, patience=2, report=said.append)
    state, control = TrainerState(max_steps=100), TrainerControl()
    for step in range(1, 9):
        state.global_step = step
        with torch.no_grad():
            model.weight.fill_(step)
        keeper.on_step_end(TrainingArguments(output_dir=str(tmp_path)), state, control)
        assert control.should_training_stop == (step == 8)
    assert keeper.best is not None
    assert (keeper.best.step, keeper.best.loss) == (4, 1.0)
    keeper.restore()
    assert model.weight.item() == 4
    assert said[-1] == "keeping the adapter of step 4: held-out loss 1.0000"


def test_a_run_that_overfits_publishes_an_earlier_adapter(tmp_path: Path, bases: dict[Family, Path]) -> None:
    other = [{"instruction": row["instruction"], "input": row["input"], "output": "zzz"} for row in ENGLISH[:4]]
    settings: dict[str, Any] = {
        "eval_data": write_jsonl(tmp_path / "held_out.jsonl", other),
        "max_steps": 60,
        "eval_steps": 2,
        "early_stopping_patience": 3,
        "learning_rate": 0.1,
    }
    output = io.StringIO()
    result = _run(tiny_config(bases["llama"], tmp_path, **settings), output)
    assert result.manifest.training is not None
    assert result.manifest.training.steps < 60
    assert "no better held-out loss 3 times in a row: stopping" in output.getvalue()
    assert "keeping the adapter of step " in output.getvalue()


# -- out of memory -----------------------------------------------------------------------------------------------------


def test_out_of_memory_halves_the_pieces_and_changes_nothing(
    tmp_path: Path, bases: dict[Family, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(bases["llama"], tmp_path, per_device_train_batch_size=8, gradient_accumulation_steps=2)
    whole = _run(config)
    sizes: list[int] = []
    from training.packed_model import PackedModel

    usual = PackedModel.summed_loss

    def cramped(self: PackedModel, rows: Any) -> torch.Tensor:
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return usual(self, rows)

    monkeypatch.setattr(PackedModel, "summed_loss", cramped)
    small = _run(config.model_copy(update={"name": "small"}))
    assert max(sizes) > 2
    assert [p.loss for p in small.losses] == pytest.approx([p.loss for p in whole.losses], rel=1e-4)


def test_other_errors_are_not_taken_for_it(
    tmp_path: Path, bases: dict[Family, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Any, rows: Any) -> Iterator[torch.Tensor]:
        del self, rows
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("training.packed_model.PackedModel.summed_loss", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        _run(tiny_config(bases["llama"], tmp_path))
