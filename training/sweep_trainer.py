"""Trainer for several adapters at once: one pass, and of each its own gradient norm, rates and state. Chooses none."""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.batch_loss import held_out_losses
from training.examples import Collator, Example
from training.prepare import PreparedRun
from training.sweep_grid import Candidate
from training.sweep_loss import CandidatesLoss
from training.trainer import AdapterTrainer, LogLastStep, LossPoint, training_arguments


class Candidates(torch.nn.Module):
    """Adapters over one frozen base, as one module to train."""

    def __init__(self, models: Sequence[PeftModel]) -> None:
        super().__init__()
        self.models = torch.nn.ModuleList(models)
        base = models[0].get_base_model()
        takes_any = inspect.signature(base.forward).parameters.values()
        self.accepts_loss_kwargs: bool = getattr(
            base, "accepts_loss_kwargs", any(each.kind == inspect.Parameter.VAR_KEYWORD for each in takes_any)
        )
        """Trainer's question to a model, answered as the base would: it decides how losses are normalised."""


@dataclass(frozen=True, slots=True)
class _StepLosses:
    step: int
    active: tuple[int, ...]
    losses: torch.Tensor  # [active]


class SweepTrainer(AdapterTrainer):
    """Gives each candidate the numbers that it would have in a run of its own with the same seed."""

    def __init__(
        self, *, models: Sequence[PeftModel], candidates: Sequence[Candidate], loss: CandidatesLoss, **kwargs: Any
    ) -> None:
        super().__init__(batch_loss=loss, keeper=None, clock=None, model=Candidates(models), **kwargs)
        self._models = tuple(models)
        self._candidates = tuple(candidates)
        self._loss = loss
        self._steps: list[_StepLosses] = []

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Trainer's own optimiser; the groups of a candidate have its learning rate and weight decay."""
        del model
        if self.optimizer is None:
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args)
            groups = [
                group
                for each, candidate in zip(self._models, self._candidates, strict=True)
                for group in self._groups(each, candidate)
            ]
            self.optimizer = kind(groups, **settings)
        return self.optimizer

    def _groups(self, model: PeftModel, candidate: Candidate) -> list[dict[str, Any]]:
        decaying = set(self.get_decay_parameter_names(model))
        trained = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
        rate, decay = candidate.config.learning_rate, candidate.config.weight_decay
        groups = [
            {"params": [each for name, each in trained if name in decaying], "lr": rate, "weight_decay": decay},
            {"params": [each for name, each in trained if name not in decaying], "lr": rate, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        """Of each candidate by itself; returns the longest."""
        del model
        norms = [
            self.accelerator.clip_grad_norm_(self._models[number].parameters(), self.args.max_grad_norm)
            for number in self._loss.active
        ]
        return torch.stack([torch.as_tensor(norm) for norm in norms]).max()

    def _backward(self, batch: dict[str, torch.Tensor], items: int) -> torch.Tensor:
        totals = torch.zeros(len(self._loss.active), device=self.args.device)
        for losses in self._loss.pieces(batch):
            shares = losses / items
            self.accelerator.backward(shares.sum())
            totals += shares.detach()
        self._steps.append(_StepLosses(self.state.global_step + 1, self._loss.active, totals))
        return totals.mean()

    def held_out_losses(self, examples: Sequence[Example]) -> dict[int, float]:
        """Nats per answer token of each candidate that is still trained."""
        for model in self._models:
            model.eval()  # every training step sets it back
        with torch.no_grad():
            losses = held_out_losses(self._loss.pieces, examples, device=self.args.device).tolist()
        return dict(zip(self._loss.active, losses, strict=True))

    def curve(self, number: int) -> list[LossPoint]:
        """The loss of each optimiser step of a candidate, as long as it was trained."""
        sums: dict[int, float] = {}
        for each in self._steps:
            if number in each.active:
                sums[each.step] = sums.get(each.step, 0.0) + float(each.losses[each.active.index(number)])
        return [LossPoint(step, loss) for step, loss in sums.items()]


class Halving(TrainerCallback):
    """Half-way, measures all candidates on held-out rows, and drops the worse half of them."""

    def __init__(self, trainer: SweepTrainer, loss: CandidatesLoss, examples: Sequence[Example]) -> None:
        self._trainer = trainer
        self._loss = loss
        self._examples = examples
        self.dropped: dict[int, float] = {}
        """Their held-out losses then, by number."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        del args, control, kwargs
        if state.global_step != state.max_steps // 2 or len(self._loss.active) < 3:
            return
        losses = self._trainer.held_out_losses(self._examples)
        ranked = sorted(losses, key=lambda number: rank(losses[number]))
        kept = ranked[: (len(ranked) + 1) // 2]
        self._loss.keep(kept)
        self.dropped = {number: losses[number] for number in ranked if number not in kept}


def rank(loss: float) -> float:
    """Losses in order; one that is no number, of a rate far too high, is the worst."""
    return float("inf") if math.isnan(loss) else loss


def build_sweep_trainer(
    models: Sequence[PeftModel],
    candidates: Sequence[Candidate],
    run: PreparedRun,
    *,
    loss: CandidatesLoss,
    device: torch.device,
    output_dir: Path,
    reporter: TrainerCallback,
) -> SweepTrainer:
    """A trainer that is ready to run. All but rates and decay is the first candidate's, and the same in all of them."""
    trainer = SweepTrainer(
        models=models,
        candidates=candidates,
        loss=loss,
        args=training_arguments(candidates[0].config, device=device, output_dir=output_dir),
        train_dataset=[example.features() for example in run.train.examples],
        data_collator=Collator(run.pad_id),
        callbacks=[LogLastStep(), reporter],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer
