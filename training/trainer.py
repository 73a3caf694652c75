"""transformers' Trainer, with two things changed: how the loss is computed, and that it writes and prints nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from training.config import TrainConfig
from training.examples import Collator, Example, length_groups
from training.loss import summed_answer_loss

_ROWS_PER_FORWARD_ON_CPU = 4
"""Fewer rows leave less padding, more rows use the matrix units better; a CPU is fastest here."""
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


class SoftPromptTrainer(Trainer):
    """Trains a PEFT soft prompt on examples, with logits at labelled positions only.

    `rows_per_forward` cuts a batch into groups of like length. They add up to the loss of the batch, with less padding.
    The loss is normalised as Trainer's own: by all labelled positions of an optimiser step where the base model's
    forward takes that number, by those of one batch elsewhere.
    """

    def __init__(self, *, num_virtual_tokens: int, rows_per_forward: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._rows_per_forward = rows_per_forward
        self._num_virtual_tokens = num_virtual_tokens

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001, FBT002 (Trainer's signature)
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Mean cross entropy of the answers in a batch, or the batch's share of an optimiser step's mean."""
        assert not return_outputs, "the Trainer asks for outputs in its own evaluation only, which is not used"
        total, count = torch.zeros((), device=self.args.device), 0
        for group in length_groups(inputs, rows_per_group=self._rows_per_forward):
            group_total, group_count = summed_answer_loss(model, num_virtual_tokens=self._num_virtual_tokens, **group)
            total, count = total + group_total, count + group_count
        items = count if num_items_in_batch is None else num_items_in_batch
        # Rows without an answer teach nothing: they give 0, where 0 / 0 would spoil the prompt.
        loss: torch.Tensor = total / max(items, 1)
        return loss

    @property
    def losses(self) -> list[LossPoint]:
        """The logged losses so far."""
        return [LossPoint(int(entry["step"]), entry["loss"]) for entry in self.state.log_history if "loss" in entry]


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
    examples: Sequence[Example],
    config: TrainConfig,
    *,
    device: torch.device,
    pad_id: int,
    output_dir: Path,
    reporter: TrainerCallback,
) -> SoftPromptTrainer:
    """A trainer that is ready to run; `output_dir` is only asked for by Trainer and stays empty."""
    arguments = OneDeviceArguments(
        output_dir=str(output_dir),
        max_steps=-1 if config.max_steps is None else config.max_steps,  # Trainer's way to say "by epochs"
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type == "cuda",
        include_num_input_tokens_seen="non_padding",
        remove_unused_columns=False,
        label_names=["labels"],
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **{key: getattr(config, key) for key in _SAME_KEYS},
    )
    trainer = SoftPromptTrainer(
        num_virtual_tokens=model.active_peft_config.num_virtual_tokens,
        rows_per_forward=_ROWS_PER_FORWARD_ON_CPU if device.type == "cpu" else config.per_device_train_batch_size,
        model=model,
        args=arguments,
        train_dataset=[example.features() for example in examples],
        data_collator=Collator(pad_id),
        callbacks=[LogLastStep(), reporter],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer
