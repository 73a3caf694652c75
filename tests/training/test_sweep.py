"""Sweeps: candidates trained together are each what they are alone, the best is chosen, and a broken run remembers."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from adapters.base_model import load_weights
from tests.tiny import Family
from tests.training.rows import ENGLISH, tiny_config, write_jsonl
from training.config import TrainConfig
from training.config_reading import config_yaml, load_train_config
from training.errors import ConfigError
from training.examples import Collator
from training.model import add_adapter
from training.packed_model import PackedModel
from training.packing import unpadded_rows
from training.prepare import PreparedRun, prepare_run
from training.run import TrainResult, train
from training.sweep import Sweep, run_sweep
from training.sweep_grid import candidates_of
from training.sweep_loss import CandidatesLoss
from training.sweep_trainer import SweepTrainer
from training.trainer import build_trainer

CPU = torch.device("cpu")
GRID = {"learning_rate": (0.01, 0.1), "init": ("text", "vocab")}


def _config(base: Path, tmp_path: Path, **settings: object) -> TrainConfig:
    held_out = write_jsonl(tmp_path / "held_out.jsonl", ENGLISH[:6])
    chosen: dict[str, Any] = {"eval_data": held_out, "sweep": GRID, "sweep_steps": 4}
    return tiny_config(base, tmp_path, **(chosen | settings))


def _prepared(config: TrainConfig) -> tuple[PreparedRun, Any]:
    run = prepare_run(config, Console(file=io.StringIO()))
    return run, load_weights(run.base.path, dtype=torch.float32, device=CPU)


def _sweep(config: TrainConfig) -> Sweep:
    run, weights = _prepared(config)
    return run_sweep(run, config, weights, device=CPU, console=Console(file=io.StringIO()))


def _run(config: TrainConfig, output: io.StringIO | None = None) -> TrainResult:
    return train(config, console=Console(file=output or io.StringIO(), width=120))


@pytest.mark.parametrize(
    ("family", "method"),
    [("llama", "prompt_tuning"), ("llama", "prefix_tuning"), ("gpt2", "p_tuning"), ("bloom", "prompt_tuning")],
)
def test_gradients_together_are_those_of_each_alone(
    tmp_path: Path, bases: dict[Family, Path], family: Family, method: str
) -> None:
    config = _config(bases[family], tmp_path, method=method, sweep=None, prompt_tuning_init_text=None)
    run, weights = _prepared(config)
    seeds = (1, 2, 3)
    starts = {"num_virtual_tokens": 5} | ({} if method == "p_tuning" else {f"{method}_init": "random"})
    models = [
        add_adapter(weights, run.base, config.model_copy(update=starts | {"seed": seed}), run.train.answered)
        for seed in seeds
    ]
    batch = Collator(0)([each.features() for each in run.train.examples[:6]])
    alone = []
    for model in models:
        loss = PackedModel(model).summed_loss(unpadded_rows(batch))
        loss.backward()
        trained = [each for each in model.parameters() if each.requires_grad]
        alone.append((loss.item(), [each.grad.clone() for each in trained if each.grad is not None]))
        model.zero_grad()
    pieces = list(CandidatesLoss(models, max_tokens=120).pieces(batch))
    assert len(pieces) > 1
    torch.stack(pieces).sum().backward()
    for number, (loss_alone, gradients) in enumerate(alone):
        assert sum(piece[number].item() for piece in pieces) == pytest.approx(loss_alone, rel=1e-5)
        together = [each.grad for each in models[number].parameters() if each.grad is not None]
        for ours, theirs in zip(together, gradients, strict=True):
            assert float((ours - theirs).norm()) <= 1e-5 * float(theirs.norm())


@pytest.mark.parametrize(
    "settings", [{}, {"gradient_accumulation_steps": 2, "weight_decay": 0.1, "lr_scheduler_type": "cosine"}]
)
def test_curves_together_are_those_of_single_runs(
    tmp_path: Path, bases: dict[Family, Path], settings: dict[str, Any]
) -> None:
    config = _config(bases["llama"], tmp_path, sweep_halving=False, **settings)
    run, weights = _prepared(config)
    sweep = run_sweep(run, config, weights, device=CPU, console=Console(file=io.StringIO()))
    assert len(sweep.tried) == 4
    assert sweep.best is min(sweep.tried, key=lambda each: each.held_out_loss)
    for each in sweep.tried:
        model = add_adapter(weights, run.base, each.candidate.config, run.train.answered)
        alone = build_trainer(
            model, run, each.candidate.config, device=CPU, output_dir=tmp_path, reporter=TrainerCallback()
        )
        alone.train()
        assert [point.step for point in each.curve] == [1, 2, 3, 4]
        ours, theirs = ([point.loss for point in curve] for curve in (each.curve, alone.losses))
        assert ours == pytest.approx(theirs, rel=1e-5), each.candidate.label
        assert run.held_out is not None
        assert each.held_out_loss == pytest.approx(alone.held_out_loss(run.held_out), rel=1e-5)


@pytest.mark.slow
def test_the_best_goes_on_and_everything_is_told(tmp_path: Path, bases: dict[Family, Path]) -> None:
    output = io.StringIO()
    result = _run(_config(bases["llama"], tmp_path, sweep={"learning_rate": (1e-5, 1e-4, 0.05, 0.1)}), output)
    facts = json.loads((tmp_path / "run" / "sweep.json").read_text())
    assert [each["steps"] for each in facts["candidates"]] == [2, 2, 4, 4]
    best = min(facts["candidates"][2:], key=lambda each: each["held_out_loss"])
    assert facts["chosen"] == best["settings"]
    assert result.manifest.training is not None
    assert result.manifest.training.settings["learning_rate"] == facts["chosen"]["learning_rate"]
    assert result.manifest.training.steps == 3
    lines = output.getvalue()
    assert "sweep: 4 candidates, 4 optimiser steps each" in lines
    assert "chosen" in lines
    assert f"sweep: going on with learning_rate {facts['chosen']['learning_rate']:.3g}" in lines


def test_a_rate_that_spoils_a_candidate_spoils_no_other(tmp_path: Path, bases: dict[Family, Path]) -> None:
    settings = {"max_grad_norm": 0, "optim": "sgd", "sweep_halving": False}
    both = _sweep(_config(bases["llama"], tmp_path, sweep={"learning_rate": (0.01, 1e38)}, **settings))
    one = _sweep(_config(bases["llama"], tmp_path, sweep={"learning_rate": (0.01,)}, **settings))
    assert both.best.candidate.settings == {"learning_rate": 0.01}
    assert both.best.held_out_loss == pytest.approx(one.best.held_out_loss, rel=1e-5)


@pytest.mark.slow
def test_weight_deltas_are_swept_one_after_another(
    tmp_path: Path, bases: dict[Family, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("training.sweep.build_sweep_trainer")
    config = _config(
        bases["llama"], tmp_path, method="lora", prompt_tuning_init_text=None, sweep={"learning_rate": (1e-4, 0.02)}
    )
    output = io.StringIO()
    result = _run(config, output)
    assert result.manifest.training is not None
    assert result.manifest.training.settings["learning_rate"] == 0.02
    single = _run(config.model_copy(update={"sweep": None, "learning_rate": 0.02, "name": "single"}))
    assert [point.loss for point in result.losses] == pytest.approx([point.loss for point in single.losses], rel=1e-6)


@pytest.mark.slow
def test_a_broken_run_does_not_sweep_again(
    tmp_path: Path, bases: dict[Family, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerLoss(Exception):
        pass

    class Plug(TrainerCallback):
        def on_step_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
        ) -> None:
            del args, control, kwargs
            if state.global_step == 2:
                raise PowerLoss

    def build(*arguments: Any, **settings: Any) -> Any:
        trainer = build_trainer(*arguments, **settings)
        trainer.add_callback(Plug())
        return trainer

    whole = _run(_config(bases["llama"], tmp_path))
    config = _config(bases["llama"], tmp_path, checkpoint_dir=tmp_path / "checkpoints", save_steps=1)
    with monkeypatch.context() as patch:
        patch.setattr("training.loop.build_trainer", build)
        with pytest.raises(PowerLoss):
            _run(config)
    monkeypatch.delattr(SweepTrainer, "create_optimizer")
    monkeypatch.setattr("training.run.run_sweep", None)
    output = io.StringIO()
    resumed = _run(config, output)
    assert "going on from checkpoint-1" in output.getvalue()
    assert [p.loss for p in resumed.losses] == pytest.approx([p.loss for p in whole.losses], rel=1e-6)
    assert not (tmp_path / "checkpoints" / "sweep.json").exists()


def _kill_when_it_says(config: TrainConfig, file: Path, words: str) -> None:
    """Run a configuration in a process of its own, and kill -9 it in the middle of what these words begin."""
    file.write_text(config_yaml(config), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "hotprompt", "train", "--config", str(file)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    with process, process.stdout as lines:
        assert any(words in line for line in lines)
        process.kill()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_sweep_that_is_killed_ends_in_the_same_choice_and_curve(tmp_path: Path, bases: dict[Family, Path]) -> None:
    settings: dict[str, Any] = {"sweep_steps": 16, "max_steps": 6}
    whole = _run(_config(bases["llama"], tmp_path, **settings))
    expected = json.loads((tmp_path / "run" / "sweep.json").read_text())
    for words, remembers in (("step 3/16 ", False), ("sweep: going on with", True)):
        place = tmp_path / f"remembers-{remembers}"
        places = {"checkpoint_dir": place / "checkpoints", "run_dir": place / "run"}
        config = _config(bases["llama"], tmp_path, **settings, **places)
        _kill_when_it_says(config, tmp_path / "run.yaml", words)
        assert (place / "checkpoints" / "sweep.json").exists() == remembers
        output = io.StringIO()
        resumed = _run(config, output)
        assert ("sweep: 4 candidates" in output.getvalue()) != remembers
        found = json.loads((place / "run" / "sweep.json").read_text())
        assert found["chosen"] == expected["chosen"]
        held_out = [[each["held_out_loss"] for each in facts["candidates"]] for facts in (found, expected)]
        assert held_out[0] == pytest.approx(held_out[1], rel=1e-6)
        assert [point.step for point in resumed.losses] == [point.step for point in whole.losses]
        assert [p.loss for p in resumed.losses] == pytest.approx([p.loss for p in whole.losses], rel=1e-6)


def test_the_default_grid_is_rates_by_starts() -> None:
    config = load_train_config(None, [], {"data": "x.jsonl", "name": "x", "eval_fraction": 0.1, "sweep": ["default"]})
    settings = [dict(each.settings) for each in candidates_of(config)]
    assert len(settings) == 6
    assert {each["init"] for each in settings} == {"text", "vocab"}
    assert sorted({each["learning_rate"] for each in settings}) == pytest.approx([2e-2 / 3, 2e-2, 6e-2])


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"sweep": ["learning_rate"]}, "sweep: 'learning_rate' must be 'default' or key=value,value"),
        ({"sweep": ["seed=1,2"]}, "sweep: "),
        ({"sweep": ["learning_rate=0.1,-1"]}, "sweep: learning_rate: should be greater than 0"),
        ({"sweep": ["init=text,zero"]}, "sweep: prompt_tuning_init: 'zero' is not supported"),
        ({"sweep": ["init=text"], "method": "lora"}, "sweep: init means nothing with method lora"),
        ({"sweep": ["init=text"], "init_adapter": "x"}, "sweep: init means nothing with init_adapter"),
        ({"sweep": {"learning_rate": [0.1] * 16, "weight_decay": [0.1] * 5}}, "80 candidates are over the limit"),
        ({"sweep": "default", "eval_fraction": None}, "sweep: needs held-out rows"),
    ],
)
def test_grids_that_make_no_runs_are_refused(settings: dict[str, Any], problem: str) -> None:
    flags: dict[str, Any] = {"data": "rows.jsonl", "name": "x", "eval_fraction": 0.1} | settings
    with pytest.raises(ConfigError, match=problem):
        candidates_of(load_train_config(None, [], flags))
