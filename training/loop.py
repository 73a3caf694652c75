"""The loop of a run: checkpoints, Trainer, Ctrl-C, and what it did. Measures no answers and publishes nothing."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import PeftModel
from rich.console import Console

from training.checkpoints import open_checkpoints, steps_done, tokens_seen
from training.config import TrainConfig
from training.errors import NothingTrained
from training.metrics_log import MetricsLog
from training.prepare import PreparedRun
from training.progress import say, training_progress
from training.run_directory import RunDirectory
from training.tracking import TrackerLog, Trackers
from training.trainer import LossPoint, build_trainer

_NOT_DECISIVE = {"data_cache", "store", "publish", "run_dir", "checkpoint_dir", "save_steps", "report_to"}
"""Keys that do not change the course of a run."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where Trainer may write, and the checkpoint to go on from."""

    directory: Path
    last: Path | None

    @property
    def first_step(self) -> int:
        """The first optimiser step that is not in the last checkpoint; 0 of a run from the start."""
        return 0 if self.last is None else steps_done(self.last) + 1


@dataclass(frozen=True, slots=True)
class LoopFacts:
    """What the loop did. `tokens` are real ones: neither padding nor virtual tokens."""

    steps: int
    kept_step: int
    """The step whose adapter was kept: the last one, or that with the lowest held-out loss."""
    tokens: int
    tokens_per_second: float
    seconds: float
    losses: Sequence[LossPoint]
    interrupted: bool


def run_loop(
    model: PeftModel,
    run: PreparedRun,
    config: TrainConfig,
    *,
    checkpoints: Checkpoints,
    device: torch.device,
    directory: RunDirectory,
    trackers: Trackers,
    console: Console,
) -> LoopFacts:
    """Run the Trainer to its end or to Ctrl-C. Raises NothingTrained when no optimiser step was made."""
    interrupted = False
    last = checkpoints.last
    with training_progress(console, max_seconds=config.max_seconds) as reporter:
        with nothing_to_save():
            trainer = build_trainer(
                model,
                run,
                config,
                device=device,
                output_dir=checkpoints.directory,
                run_name=directory.path.name,
                reporter=reporter,
                report=partial(say, console),
            )
        directory.go_on_from(steps_done(last))
        measured = trainer.keeper.measured if trainer.keeper is not None else {}
        trainer.add_callback(MetricsLog(directory, measured))
        trainer.add_callback(TrackerLog(trackers, measured))
        if last is not None:
            say(console, f"going on from {last.name} in {checkpoints.directory}")
        tokens_before = tokens_seen(last)
        start = time.perf_counter()
        try:
            trainer.train(resume_from_checkpoint=None if last is None else str(last))
        except KeyboardInterrupt:
            interrupted = True
        seconds = time.perf_counter() - start
    if trainer.keeper is not None:
        seconds -= trainer.keeper.seconds
        trainer.keeper.restore()
    steps = trainer.state.global_step
    if steps == 0:
        raise NothingTrained("interrupted before the first optimiser step: there is nothing to save")
    if interrupted:
        say(
            console, f"interrupted after {steps:,} optimiser steps; saving what is trained (Ctrl-C again: stop at once)"
        )
    tokens = int(trainer.state.num_input_tokens_seen)
    best = trainer.keeper.best if trainer.keeper is not None else None
    kept_step = steps if best is None else best.step
    return LoopFacts(steps, kept_step, tokens, (tokens - tokens_before) / seconds, seconds, trainer.losses, interrupted)


@contextmanager
def opened_checkpoints(run: PreparedRun, config: TrainConfig) -> Iterator[Checkpoints]:
    """The run's directory of checkpoints, or one that is gone afterwards. Raises ConfigError where it is another's."""
    if config.checkpoint_dir is None:
        with TemporaryDirectory(prefix="hotprompt-train-") as directory:
            yield Checkpoints(Path(directory), None)
        return
    decisive = config.model_dump(mode="json", exclude=_NOT_DECISIVE)
    facts = {"settings": decisive, "data": run.data_digest, "base": run.base.identity.model_dump(mode="json")}
    yield Checkpoints(config.checkpoint_dir, open_checkpoints(config.checkpoint_dir, facts))


@contextmanager
def nothing_to_save() -> Iterator[None]:
    """Ctrl-C before the first step ends a run. Raises NothingTrained."""
    try:
        yield
    except KeyboardInterrupt:
        raise NothingTrained("interrupted before the first optimiser step: there is nothing to save") from None
