"""A sweep: short runs of every candidate, those of virtual tokens all in one pass, and the best by held-out loss."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import PeftModel
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel

from training.batch_loss import TOKENS_PER_PACK
from training.config import TrainConfig
from training.model import add_adapter, num_virtual_tokens, remove_adapter
from training.packed_model import can_pack
from training.prepare import PreparedRun
from training.progress import say, training_progress
from training.sweep_grid import Candidate, as_cell, candidates_of
from training.sweep_loss import CandidatesLoss
from training.sweep_trainer import Halving, build_sweep_trainer, rank
from training.trainer import LossPoint, build_trainer

_SHARE_OF_RUN = 5
_FEWEST_STEPS, _MOST_STEPS = 10, 60


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate after its short run. Losses are nats per answer token; `curve` has every optimiser step."""

    candidate: Candidate
    held_out_loss: float
    curve: Sequence[LossPoint]

    @property
    def steps(self) -> int:
        return self.curve[-1].step if self.curve else 0


@dataclass(frozen=True, slots=True)
class Sweep:
    """Every candidate that was tried, in the grid's order."""

    tried: Sequence[Tried]

    @property
    def best(self) -> Tried:
        """The lowest held-out loss among those that were trained longest."""
        longest = max(each.steps for each in self.tried)
        return min((each for each in self.tried if each.steps == longest), key=lambda each: rank(each.held_out_loss))

    def to_json(self) -> dict[str, object]:
        """As the run's directory has it."""
        candidates = [
            {
                "settings": dict(each.candidate.settings),
                "steps": each.steps,
                "held_out_loss": None if math.isnan(each.held_out_loss) else each.held_out_loss,
                "losses": [asdict(point) for point in each.curve],
            }
            for each in self.tried
        ]
        return {"chosen": dict(self.best.candidate.settings), "candidates": candidates}


def run_sweep(
    run: PreparedRun, config: TrainConfig, weights: PreTrainedModel, *, device: torch.device, console: Console
) -> Sweep:
    """Try every candidate on the run's rows, and print a table of them. The base model is left as it was.

    Raises ConfigError where the grid is no grid of legal runs.
    """
    short = short_runs(run, config)
    say(console, f"sweep: {len(short)} candidates, {short[0].config.max_steps} optimiser steps each")
    with TemporaryDirectory(prefix="hotprompt-sweep-") as directory:
        output_dir = Path(directory)
        together = None if len(short) == 1 else _together(run, short, weights, device, output_dir, console)
        tried = together or [
            try_alone(run, each, weights, device=device, output_dir=output_dir, console=console) for each in short
        ]
    sweep = Sweep(tried)
    _print(sweep, console)
    return sweep


def best_of(config: TrainConfig, run: PreparedRun, facts: Mapping[str, Any]) -> Candidate:
    """The candidate that a sweep of this configuration chose, with the settings of the full run."""
    return next(each for each in _full_runs(run, config) if dict(each.settings) == facts["chosen"])


def _full_runs(run: PreparedRun, config: TrainConfig) -> list[Candidate]:
    """All of one length, that of the text where one starts from it, so that they can be trained together."""
    candidates = candidates_of(config)
    if not num_virtual_tokens(run.base, candidates[0].config):
        return candidates
    of_text = [each.config for each in candidates if each.config.starts_from_text]
    length = num_virtual_tokens(run.base, (of_text or [candidates[0].config])[0])
    pinned = {"num_virtual_tokens": length}
    return [Candidate(each.settings, each.config.model_copy(update=pinned)) for each in candidates]


def short_runs(run: PreparedRun, config: TrainConfig) -> list[Candidate]:
    """The candidates with the settings of their short runs. Raises ConfigError."""
    rows_of_step = config.per_device_train_batch_size * config.gradient_accumulation_steps
    whole = config.max_steps or math.ceil(len(run.train.examples) * config.num_train_epochs / rows_of_step)
    steps = config.sweep_steps or max(_FEWEST_STEPS, min(_MOST_STEPS, whole // _SHARE_OF_RUN))
    short = {"max_steps": steps, "checkpoint_dir": None, "logging_steps": 1, "keep_best": False}
    return [Candidate(each.settings, each.config.model_copy(update=short)) for each in _full_runs(run, config)]


def _together(
    run: PreparedRun,
    short: Sequence[Candidate],
    weights: PreTrainedModel,
    device: torch.device,
    output_dir: Path,
    console: Console,
) -> list[Tried] | None:
    """None where they cannot be: weight deltas lie in the base itself, and of some bases rows cannot be packed."""
    first = short[0].config
    if not first.packing or not num_virtual_tokens(run.base, first):
        return None
    models: list[PeftModel] = []
    for each in short:
        models.append(add_adapter(weights, run.base, each.config, run.train.answered))
        if not can_pack(models[0]):
            return None
    assert run.held_out is not None
    loss = CandidatesLoss(
        models,
        max_tokens=first.tokens_per_pack or TOKENS_PER_PACK[device.type],
        checkpointing=first.gradient_checkpointing,
    )
    with training_progress(console) as reporter:
        trainer = build_sweep_trainer(
            models,
            short,
            run,
            loss=loss,
            device=device,
            output_dir=output_dir,
            reporter=reporter,
        )
        halving = Halving(trainer, loss, run.held_out)
        if first.sweep_halving:
            trainer.add_callback(halving)
        trainer.train()
    losses = halving.dropped | trainer.held_out_losses(run.held_out)
    return [Tried(each, losses[number], trainer.curve(number)) for number, each in enumerate(short)]


def try_alone(
    run: PreparedRun,
    candidate: Candidate,
    weights: PreTrainedModel,
    *,
    device: torch.device,
    output_dir: Path,
    console: Console,
) -> Tried:
    """A short run of one candidate. The base model is left as it was."""
    assert run.held_out is not None
    say(console, f"sweep: {candidate.label}")
    model = add_adapter(weights, run.base, candidate.config, run.train.answered)
    with training_progress(console) as reporter:
        trainer = build_trainer(
            model,
            run,
            candidate.config,
            device=device,
            output_dir=output_dir,
            reporter=reporter,
        )
        trainer.train()
    tried = Tried(candidate, trainer.held_out_loss(run.held_out), trainer.losses)
    remove_adapter(model)
    return tried


def _print(sweep: Sweep, console: Console) -> None:
    best = sweep.best
    table = Table(title="sweep: held-out loss, nats per answer token", title_justify="left")
    keys = list(best.candidate.settings)
    for title in (*keys, "steps", "training loss", "held-out loss", ""):
        table.add_column(title)
    for each in sweep.tried:
        values = each.candidate.settings.values()
        cells = [as_cell(value) for value in values]
        last = f"{each.curve[-1].loss:.4f}" if each.curve else ""
        mark = "chosen" if each is best else ""
        table.add_row(*cells, str(each.steps), last, f"{each.held_out_loss:.4f}", mark)
    console.print(table)
