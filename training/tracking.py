"""Tells experiment trackers, through transformers' callbacks, what a run measures. Knows no tracker's own interface."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import get_reporting_integration_callbacks

from training.errors import ConfigError, TrainingError
from training.progress import Speed
from training.trackers import MODULES, Tracker, install_command


@dataclass(frozen=True, slots=True)
class _Run:
    """What transformers hands to a callback beside the facts."""

    args: TrainingArguments
    state: TrainerState
    control: TrainerControl
    model: Any


class Trackers:
    """The trackers of one run, begun when its loop begins and ended when the run does.

    One that fails when it begins ends the run: nothing is trained by then. One that fails later is told no more, and
    `report` says so.
    """

    def __init__(self, callbacks: Mapping[Tracker, TrainerCallback], *, report: Callable[[str], None]) -> None:
        self._callbacks = dict(callbacks)
        self._report = report
        self._early: list[tuple[int, Mapping[str, float]]] = []
        self._run: _Run | None = None

    def begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: Any) -> None:
        """Raises TrainingError."""
        self._run = _Run(args, state, control, model)
        for name, callback in self._callbacks.items():
            try:
                callback.on_init_end(args, state, control, model=model)
                callback.on_train_begin(args, state, control, model=model)
            except Exception as error:  # whatever a tracker's client raises
                raise TrainingError(f"report_to: {name} cannot be used: {error}") from error
        early, self._early = self._early, []
        if state.global_step == 0:  # a run that goes on told them before
            for step, facts in early:
                self.note(step, facts)

    def note(self, step: int, facts: Mapping[str, float]) -> None:
        """Held-out figures of a step; those from before the beginning are told then."""
        if self._run is None:
            self._early.append((step, facts))
            return
        state = copy.copy(self._run.state)
        state.global_step = step
        self.tell("on_log", state, logs={f"eval_{name}": value for name, value in facts.items()})

    def tell(self, event: str, state: TrainerState, **facts: Any) -> None:
        """Pass one of Trainer's events on, if the trackers have begun."""
        if self._run is None:
            return
        run = self._run
        for name, callback in list(self._callbacks.items()):
            try:
                getattr(callback, event)(run.args, state, run.control, model=run.model, **facts)
            except Exception as error:  # whatever a tracker's client raises: no trained adapter is lost by it
                del self._callbacks[name]
                self._report(f"warning: report_to: {name} failed, and is told no more: {error}")

    def end(self) -> None:
        if self._run is not None:
            self.tell("on_train_end", self._run.state)
            self._run = None


class TrackerLog(TrainerCallback):
    """Passes a trainer's events on, with tokens per second beside each loss.

    `measured` grows while the run goes on: held-out losses by step. Trackers are not ended with the loop: what the run
    measures after it is for them too.
    """

    def __init__(self, trackers: Trackers, measured: Mapping[int, float]) -> None:
        self._trackers = trackers
        self._measured = measured
        self._speed = Speed(0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        del kwargs
        self._speed = Speed(int(state.num_input_tokens_seen))
        self._trackers.begin(args, state, control, model=model)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        del args, control, kwargs
        self._trackers.tell("on_step_end", state)
        loss = self._measured.get(state.global_step)
        if loss is not None:
            self._trackers.note(state.global_step, {"loss": loss})

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        del args, control, kwargs
        self._trackers.tell("on_save", state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        del args, control, kwargs
        if logs is None:
            return
        facts = dict(logs)
        if "loss" in facts:
            facts["tokens_per_second"] = self._speed.after(int(state.num_input_tokens_seen))
        self._trackers.tell("on_log", state, logs=facts)


def check_trackers(names: Sequence[Tracker]) -> None:
    """Raises ConfigError with every tracker that is not installed."""
    missing = [name for name in names if find_spec(MODULES[name]) is None]
    if missing:
        raise ConfigError([f"report_to: {name} is not installed: {install_command(name)}" for name in missing])


@contextmanager
def opened_trackers(
    names: Sequence[Tracker], *, tensorboard: Path, first_step: int, report: Callable[[str], None]
) -> Iterator[Trackers]:
    """Trackers that are ended with the context, however that ends. Raises ConfigError.

    TensorBoard's files lie in `tensorboard`; what they have from `first_step` on is no longer shown.
    """
    callbacks = {name: _callback(name, tensorboard, first_step) for name in names}
    trackers = Trackers(callbacks, report=report)
    try:
        yield trackers
    finally:
        trackers.end()


def _callback(name: Tracker, tensorboard: Path, first_step: int) -> TrainerCallback:
    (kind,) = get_reporting_integration_callbacks([name])
    try:
        if name == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            return kind(SummaryWriter(str(tensorboard), purge_step=first_step))  # type: ignore[no-any-return]
        return kind()  # type: ignore[no-any-return]
    except Exception as error:  # whatever a tracker's client raises
        raise ConfigError([f"report_to: {name} cannot be used: {error}"]) from error
