"""Writes what a trainer logs into the run's metrics, a line of JSON each. Prints nothing."""

import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.run_directory import RunDirectory

_NAMES = {"loss": "loss", "learning_rate": "learning_rate", "grad_norm": "grad_norm"}


class MetricsLog(TrainerCallback):
    """One line for each logged loss: step, epoch, loss, learning rate, gradient norm, real tokens, seconds."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._start = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        del args, state, control, kwargs
        self._start = time.monotonic()

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
