"""transformers' Trainer, with two things changed: how the loss is computed, and that it writes and prints nothing."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from training.batch_loss import BatchLoss, choose_batch_loss, held_out_loss
from training.best import BestKeeper
from training.checkpoints import load_trained, mark_whole, save_trained
from training.config import TrainConfig
from training.examples import IGNORED_LABEL, Collator, Example
from training.memory import give_back
from training.prepare import PreparedRun
from training.schedule import Clock, by_the_clock, one_step_on

_LOG = logging.getLogger(__name__)
_HELD_OUT_ON_THE_WAY = 256
"""Rows at most that a measurement on the way takes: it is made ten times, and has to tell better from worse only."""
_SAME_KEYS = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "train_sampling_strategy",
    "seed",
    "logging_steps",
)


@dataclass(frozen=True, slots=True)
class LossPoint:
    """Mean loss, in nats per answer token, over the optimiser steps that end with `step`."""

    step: int
    loss: float


class OneDeviceArguments(TrainingArguments):
    """Arguments of a run on one device, even where more are seen."""

    @property
    def n_gpu(self) -> int:
        return 1 if super().n_gpu else 0


class AdapterTrainer(Trainer):
    """Trains a PEFT adapter on examples, going backward from one piece of a batch after another.

    The loss is normalised as Trainer's own: by all labelled positions of an optimiser step where the base model's
    forward takes that number, by those of one batch elsewhere. Where memory runs out, the batch is done again in
    smaller pieces; which they are does not change its gradient.
    """

    def __init__(self, *, batch_loss: BatchLoss, keeper: BestKeeper | None, clock: Clock | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._batch_loss = batch_loss
        self._clock = clock
        self.keeper = keeper

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor | Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Add a batch's gradient to the parameters'; returns its loss, or its share of an optimiser step's mean."""
        model.train()
        batch = self._prepare_inputs(inputs)
        # Rows without an answer teach nothing: they give 0, where 0 / 0 would spoil the adapter.
        if num_items_in_batch is None:
            items = int((batch["labels"][:, 1:] != IGNORED_LABEL).sum()) * self.current_gradient_accumulation_steps
        else:
            items = int(num_items_in_batch)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients = [None if each.grad is None else each.grad.clone() for each in parameters]
        while True:
            try:
                return self._backward(batch, max(items, 1))
            except RuntimeError as error:
                if not _is_out_of_memory(error) or not self._batch_loss.halve():
                    raise
                _LOG.warning("out of memory: going on with pieces of half the size")
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = None if gradient is None else gradient.clone()

    def _backward(self, batch: dict[str, torch.Tensor], items: int) -> torch.Tensor:
        total = torch.zeros((), device=self.args.device)
        for piece in self._batch_loss.pieces(batch):
            loss = piece / items
            self.accelerator.backward(loss)
            total += loss.detach()
            give_back(self.args.device)
        return total

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """Trainer's own; a warm-up of n steps rises from 1/n and not from 0, and the last step is above 0 as well.

        With a clock, the course is gone through in its time.
        """
        warms_up = self.args.get_warmup_steps(num_training_steps) > 0
        usual = super().create_scheduler(num_training_steps + warms_up, optimizer)
        assert isinstance(usual, LambdaLR)
        if not warms_up and self._clock is None:
            return usual
        courses = [one_step_on(course) for course in usual.lr_lambdas] if warms_up else list(usual.lr_lambdas)
        if self._clock is not None:
            courses = [by_the_clock(course, steps=num_training_steps, clock=self._clock) for course in courses]
        self.lr_scheduler = LambdaLR(usual.optimizer, courses)
        return self.lr_scheduler

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """What is trained, and not the adapter's files: those cannot be trained on, where a method has an encoder."""
        del state_dict
        assert output_dir is not None
        assert isinstance(self.model, PeftModel)
        save_trained(self.model, Path(output_dir))
        if self.keeper is not None:
            self.keeper.save(Path(output_dir))

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super()._save_checkpoint(*args, **kwargs)
        mark_whole(Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        trained = self.model if model is None else model
        assert isinstance(trained, PeftModel)
        load_trained(trained, Path(resume_from_checkpoint))
        if self.keeper is not None:
            self.keeper.load(Path(resume_from_checkpoint))

    def held_out_loss(self, examples: Sequence[Example]) -> float:
        """Nats per answer token of the adapter as it is."""
        assert isinstance(self.model, PeftModel)
        return _held_out_loss(self.model, self._batch_loss, examples)

    @property
    def losses(self) -> list[LossPoint]:
        """The logged losses so far."""
        return [LossPoint(int(entry["step"]), entry["loss"]) for entry in self.state.log_history if "loss" in entry]


class StopInTime(TrainerCallback):
    """Starts a clock with the run, and ends the run when the time is up; the last loss is logged."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        del args, state, control, kwargs
        self._clock.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        del args, state, kwargs
        if self._clock.share_gone >= 1:
            control.should_training_stop = True
            control.should_log = True


class LogLastStep(TrainerCallback):
    """Has the loss of the last, shorter window logged too."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        del args, kwargs
        if state.global_step >= state.max_steps:
            control.should_log = True
        return control


def build_trainer(
    model: PeftModel,
    run: PreparedRun,
    config: TrainConfig,
    *,
    device: torch.device,
    output_dir: Path,
    run_name: str | None = None,
    reporter: TrainerCallback,
    report: Callable[[str], None] = _LOG.info,
) -> AdapterTrainer:
    """A trainer that is ready to run. It writes checkpoints into `output_dir` where the run has a `checkpoint_dir`.

    With held-out rows it keeps the best adapter, as the configuration says, and tells `report` of it.
    """
    batch_loss = choose_batch_loss(
        model,
        packing=config.packing,
        device=device,
        batch_size=config.per_device_train_batch_size,
        tokens_per_pack=config.tokens_per_pack,
        checkpointing=config.gradient_checkpointing,
    )
    clock = None if config.max_seconds is None else Clock(config.max_seconds)
    keeper = None
    if run.held_out and config.keep_best:
        keeper = BestKeeper(
            model,
            partial(_held_out_loss, model, batch_loss, _evenly(run.held_out, _HELD_OUT_ON_THE_WAY)),
            every=config.eval_steps,
            clock=clock,
            patience=config.early_stopping_patience,
            report=report,
        )
    trainer = AdapterTrainer(
        batch_loss=batch_loss,
        keeper=keeper,
        clock=clock,
        model=model,
        args=training_arguments(config, device=device, output_dir=output_dir, run_name=run_name),
        train_dataset=[example.features() for example in run.train.examples],
        data_collator=Collator(run.pad_id),
        callbacks=[
            LogLastStep(),
            *([] if clock is None else [StopInTime(clock)]),
            *([] if keeper is None else [keeper]),  # behind the clock: it measures once more where the run ends
            reporter,
        ],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def training_arguments(
    config: TrainConfig, *, device: torch.device, output_dir: Path, run_name: str | None = None
) -> TrainingArguments:
    """The run's settings as Trainer has them; `run_name` and the project are what trackers call it."""
    return OneDeviceArguments(
        output_dir=str(output_dir),
        max_steps=-1 if config.max_steps is None else config.max_steps,  # Trainer's way to say "by epochs"
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type == "cuda",
        include_num_input_tokens_seen="non_padding",
        remove_unused_columns=False,
        label_names=["labels"],
        save_strategy="no" if config.checkpoint_dir is None else "steps",
        save_steps=config.save_steps,
        save_total_limit=2,
        report_to="none",  # trackers outlive the loop: see training.tracking
        project="hotprompt",
        run_name=run_name,
        disable_tqdm=True,
        **{key: getattr(config, key) for key in _SAME_KEYS},
    )


def _held_out_loss(model: PeftModel, batch_loss: BatchLoss, examples: Sequence[Example]) -> float:
    model.eval()  # every training step sets it back
    return held_out_loss(batch_loss, examples, device=model.device)


def _evenly(examples: Sequence[Example], count: int) -> Sequence[Example]:
    """At most so many of them, at equal distances."""
    if len(examples) <= count:
        return examples
    return [examples[index * len(examples) // count] for index in range(count)]


def _is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA has a class for it, the CPU's allocator only words."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
