"""RunDirectory: where one run keeps its settings, metrics and pictures. Knows no model."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from adapters.home import home_directory
from training.config import TrainConfig
from training.config_reading import config_yaml
from training.errors import TrainingError


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """A directory that exists, with the run's settings in it."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def curves(self) -> tuple[Path, Path]:
        return self.path / "loss.png", self.path / "loss.svg"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation.json"

    @property
    def sweep(self) -> Path:
        return self.path / "sweep.json"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def confusion(self) -> Path:
        return self.path / "confusion.png"

    def note(self, facts: Mapping[str, object]) -> None:
        """Add one line to the metrics. Raises TrainingError."""
        with _written(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(facts), ensure_ascii=False) + "\n")

    def go_on_from(self, step: int) -> None:
        """Forget what the metrics have of later steps, and what they have twice: a run goes on here, or begins (0).

        A line that an interruption tore is forgotten too. Raises TrainingError.
        """
        kept = {(entry["step"], "loss" in entry): entry for entry in self._entries() if entry["step"] <= step}
        text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in kept.values())
        with _written(self.metrics):
            self.metrics.write_text(text, encoding="utf-8")

    def held_out_losses(self) -> dict[int, float]:
        """By step, as far as they were measured. Raises TrainingError."""
        found = {entry["step"]: entry["held_out_loss"] for entry in self._entries() if "held_out_loss" in entry}
        return dict(sorted(found.items()))

    def _entries(self) -> Iterator[dict[str, Any]]:
        with _written(self.metrics):
            lines = self.metrics.read_text(encoding="utf-8").splitlines()
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                continue

    def write_evaluation(self, facts: Mapping[str, object]) -> None:
        """Raises TrainingError."""
        _write_json(self.evaluation, facts)

    def write_sweep(self, facts: Mapping[str, object]) -> None:
        """Raises TrainingError."""
        _write_json(self.sweep, facts)


def open_run(config: TrainConfig, *, known: Path | None = None) -> RunDirectory:
    """The directory that the configuration names, or the `known` one of a run that goes on, or a new one under `runs/`
    in the home; its metrics are left.

    Raises TrainingError when it cannot be written.
    """
    named = None if config.run_dir is None else config.run_dir.expanduser()
    run = RunDirectory(named or known or _new_path(config.name))
    with _written(run.path):
        run.path.mkdir(parents=True, exist_ok=True)
        run.config.write_text(config_yaml(config), encoding="utf-8")
        run.metrics.touch()
    return run


def _write_json(path: Path, facts: Mapping[str, object]) -> None:
    with _written(path):
        path.write_text(json.dumps(dict(facts), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _new_path(name: str) -> Path:
    stem = f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    names = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
    return next(path for path in (home_directory() / "runs" / name for name in names) if not path.exists())


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingError(f"{path}: cannot be written: {error.strerror}") from error
