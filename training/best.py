"""Keeps the adapter with the lowest held-out loss, and ends a run that no longer gets better. Knows no data."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.checkpoints import set_trained, trained_copy
from training.schedule import Clock

_MEASUREMENTS = 10
_TENSORS, _FACTS = "best.safetensors", "best.json"


@dataclass(frozen=True, slots=True)
class Best:
    """The numbers of an adapter after a step, and its held-out loss in nats per answer token."""

    step: int
    loss: float
    tensors: dict[str, torch.Tensor]


class BestKeeper(TrainerCallback):
    """Measures every so many steps and at the end. `every` None is a tenth of the run; `patience` 0 never stops.

    With a `clock`, a tenth of its time is meant, or of the steps where those end first.
    """

    def __init__(
        self,
        model: PeftModel,
        measure: Callable[[], float],
        *,
        every: int | None,
        clock: Clock | None = None,
        patience: int,
        report: Callable[[str], None],
    ) -> None:
        self._model = model
        self._measure = measure
        self._every = every
        self._clock = clock
        self._tenths = 0
        self._patience = patience
        self._report = report
        self._without_gain = 0
        self.best: Best | None = None
        self.seconds = 0.0
        self.measured: dict[int, float] = {}
        """Held-out loss by step, as far as this process measured it."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        del args, kwargs
        is_last = state.global_step >= state.max_steps or control.should_training_stop
        if not is_last and not self._is_due(state):
            return
        start = time.perf_counter()
        loss = self._measure()
        self.measured[state.global_step] = loss
        self._report(f"step {state.global_step}/{state.max_steps}  held-out loss {loss:.4f}")
        if self.best is None or loss < self.best.loss:
            self.best = Best(state.global_step, loss, trained_copy(self._model))
            self._without_gain = 0
        else:
            self._without_gain += 1
            if self._without_gain == self._patience:
                self._report(f"no better held-out loss {self._patience} times in a row: stopping")
                control.should_training_stop = True
                control.should_log = True
        self.seconds += time.perf_counter() - start

    def _is_due(self, state: TrainerState) -> bool:
        if self._every is not None or self._clock is None:
            return state.global_step % (self._every or max(1, state.max_steps // _MEASUREMENTS)) == 0
        share = max(self._clock.share_gone, state.global_step / state.max_steps)
        before, self._tenths = self._tenths, int(share * _MEASUREMENTS)
        return self._tenths > before

    def restore(self) -> None:
        """Put the best numbers back into the model."""
        if self.best is not None:
            set_trained(self._model, self.best.tensors)
            self._report(f"keeping the adapter of step {self.best.step}: held-out loss {self.best.loss:.4f}")

    def save(self, checkpoint: Path) -> None:
        if self.best is None:
            return
        save_file({name: tensor.cpu() for name, tensor in self.best.tensors.items()}, checkpoint / _TENSORS)
        facts = {"step": self.best.step, "loss": self.best.loss, "without_gain": self._without_gain}
        (checkpoint / _FACTS).write_text(json.dumps(facts), encoding="utf-8")

    def load(self, checkpoint: Path) -> None:
        if not (checkpoint / _FACTS).exists():
            return
        facts = json.loads((checkpoint / _FACTS).read_text(encoding="utf-8"))
        self.best = Best(facts["step"], facts["loss"], load_file(checkpoint / _TENSORS))
        self._without_gain = facts["without_gain"]
