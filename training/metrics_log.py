"""Writes what a trainer logs into the run's metrics, a line of JSON each. Prints nothing."""

import time
from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.run_directory import RunDirectory

_NAMES = {"loss": "loss", "learning_rate": "learning_rate", "grad_norm": "grad_norm"}


class MetricsLog(TrainerCallback):
    """One line for each logged loss: step, epoch, loss, learning rate, gradient norm, real tokens, seconds.

    `measured` grows while the run goes on: held-out losses by step; a line for each.
    """

    def __init__(self, run: RunDirectory, measured: Mapping[int, float]) -> None:
        self._run = run
        self._measured = measured
        self._start = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        del args, state, control, kwargs
        self._start = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        del args, control, kwargs
        loss = self._measured.get(state.global_step)
        if loss is not None:
            self._run.note({"step": state.global_step, "held_out_loss": loss})

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        del args, control, kwargs
        if logs is None or "loss" not in logs:
            return
        seconds = time.monotonic() - self._start
        facts = {name: float(logs[key]) for key, name in _NAMES.items() if key in logs}
        self._run.note(
            {
                "step": state.global_step,
                "epoch": state.epoch,
                **facts,
                "tokens": int(state.num_input_tokens_seen),
                "seconds": round(seconds, 3),
            }
        )
