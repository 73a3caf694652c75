"""What a run shows while it works: a progress bar on a terminal, plain lines elsewhere. Knows no model and no data."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Speed:
    """Real tokens per second since it was made, when `tokens` had been seen."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._start = time.monotonic()

    def after(self, tokens: int) -> float:
        return (tokens - self._tokens) / max(time.monotonic() - self._start, 1e-9)


class StepBar(TrainerCallback):
    """Keeps a progress bar at the trainer's step, with the loss logged last."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self._speed = Speed(0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        del args, control, kwargs
        self._speed = Speed(int(state.num_input_tokens_seen))
        self._progress.update(self._task, total=state.max_steps)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        del args, control, kwargs
        self._progress.update(self._task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        del args, control, kwargs
        if logs is not None and "loss" in logs:
            speed = self._speed.after(int(state.num_input_tokens_seen))
            self._progress.update(self._task, note=f"loss {logs['loss']:.4f}  {speed:,.0f} tokens/s")


class StepLines(TrainerCallback):
    """Prints one line for each logged loss. `max_seconds` is when the run ends at the latest."""

    def __init__(self, console: Console, *, max_seconds: float | None) -> None:
        self._console = console
        self._max_seconds = math.inf if max_seconds is None else max_seconds
        self._start = time.monotonic()
        self._speed = Speed(0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        del args, control, kwargs
        self._speed = Speed(int(state.num_input_tokens_seen))

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
        elapsed = time.monotonic() - self._start
        by_steps = elapsed / state.global_step * (state.max_steps - state.global_step)
        left = max(0.0, min(by_steps, self._max_seconds - elapsed))
        say(
            self._console,
            f"step {state.global_step}/{state.max_steps}  loss {logs['loss']:.4f}  "
            f"{self._speed.after(int(state.num_input_tokens_seen)):,.0f} tokens/s  "
            f"{_clock(elapsed)} elapsed, {_clock(left)} left",
        )


@contextmanager
def training_progress(console: Console, *, max_seconds: float | None = None) -> Iterator[TrainerCallback]:
    """A callback that shows the steps of a trainer while the context is open."""
    if not console.is_terminal:
        yield StepLines(console, max_seconds=max_seconds)
        return
    with _bar(console) as progress:
        yield StepBar(progress, progress.add_task("training", total=None, note=""))


@contextmanager
def evaluation_progress(console: Console, title: str, num_rows: int) -> Iterator[Callable[[int], None]]:
    """A function that is told how many more rows are done, while the context is open."""
    if not console.is_terminal:
        say(console, f"{title}: {num_rows:,} held-out rows")
        yield lambda _: None
        return
    with _bar(console) as progress:
        task = progress.add_task(title, total=num_rows, note="")
        yield lambda count: progress.advance(task, count)


def say(console: Console, text: str) -> None:
    """Print a line as it is: no markup, no colours of rich's own choosing, no wrapping."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TextColumn("time left"),
        TimeRemainingColumn(),
        console=console,
    )


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
