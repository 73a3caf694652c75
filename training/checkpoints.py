"""Checkpoints of a run: which of them are whole, whose they are, and the trained numbers in them. Trains nothing.

A checkpoint is a directory that transformers' Trainer writes in place. It counts when a marker stands in it, which is
written last: what a power loss tore has none, and is thrown away.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from training.errors import ConfigError

RUN_FILE = "run.json"
TRAINED_FILE = "trained.safetensors"
STATE_FILE = "trainer_state.json"
_SWEEP_FILE = "sweep.json"
_RUN_DIRECTORY_FILE = "run_directory"
_MARKER = "complete"
_PREFIX = "checkpoint-"


def open_checkpoints(directory: Path, run: Mapping[str, object]) -> Path | None:
    """The last whole checkpoint of a run in its directory, None where it has none yet; torn ones are removed.

    `run` is all that decides the run's course, as JSON has it; it is stored in the directory. Raises ConfigError where
    the directory is another run's, or cannot be written.
    """
    file = directory / RUN_FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if file.exists() and json.loads(file.read_text(encoding="utf-8")) != json.loads(json.dumps(run)):
            problem = f"{directory} holds a run with other settings or data; remove it, or name another"
            raise ConfigError([f"checkpoint_dir: {problem}"])
        file.write_text(json.dumps(run, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for checkpoint in _checkpoints(directory):
            if not (checkpoint / _MARKER).exists():
                shutil.rmtree(checkpoint)
    except (OSError, ValueError) as error:
        raise ConfigError([f"checkpoint_dir: {directory} cannot be used: {error}"]) from None
    return max(_checkpoints(directory), key=_step, default=None)


def recall_sweep(directory: Path) -> dict[str, Any] | None:
    """What `remember_sweep` left for a run that was interrupted later; None where there is nothing."""
    try:
        return dict(json.loads((directory / _SWEEP_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def remember_sweep(directory: Path, facts: Mapping[str, object]) -> None:
    """Keep what a sweep found, brought to the disk before it gets its name. Raises ConfigError."""
    unnamed = directory / f".{_SWEEP_FILE}"
    try:
        unnamed.write_text(json.dumps(dict(facts), ensure_ascii=False) + "\n", encoding="utf-8")
        _flush(unnamed)
        unnamed.replace(directory / _SWEEP_FILE)
        _flush(directory)
    except OSError as error:
        raise ConfigError([f"checkpoint_dir: {directory} cannot be used: {error}"]) from None


def recall_run_directory(directory: Path) -> Path | None:
    """Where an interrupted run of these checkpoints has its metrics; None where there is none."""
    try:
        return Path((directory / _RUN_DIRECTORY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def remember_run_directory(directory: Path, path: Path) -> None:
    """Keep where a run has its metrics. Raises ConfigError."""
    try:
        (directory / _RUN_DIRECTORY_FILE).write_text(str(path.absolute()), encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"checkpoint_dir: {directory} cannot be used: {error}"]) from None


def remove_checkpoints(directory: Path) -> None:
    """What a finished run needs no more; its settings stay."""
    (directory / _SWEEP_FILE).unlink(missing_ok=True)
    (directory / _RUN_DIRECTORY_FILE).unlink(missing_ok=True)
    for checkpoint in _checkpoints(directory):
        shutil.rmtree(checkpoint, ignore_errors=True)


def mark_whole(checkpoint: Path) -> None:
    """Bring everything in a checkpoint to the disk, and then its marker."""
    for file in checkpoint.iterdir():
        _flush(file)
    (checkpoint / _MARKER).touch()
    _flush(checkpoint / _MARKER)
    _flush(checkpoint)
    _flush(checkpoint.parent)


def save_trained(model: PeftModel, directory: Path) -> None:
    """Every number that is trained: more than what is published, where a method has an encoder."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: each.detach().cpu().clone() for name, each in model.named_parameters() if each.requires_grad}
    save_file(tensors, directory / TRAINED_FILE)


def load_trained(model: PeftModel, directory: Path) -> None:
    set_trained(model, load_file(directory / TRAINED_FILE))


def trained_copy(model: PeftModel) -> dict[str, torch.Tensor]:
    return {name: each.detach().clone() for name, each in model.named_parameters() if each.requires_grad}


def set_trained(model: PeftModel, tensors: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(tensors[name])


def steps_done(checkpoint: Path | None) -> int:
    """Optimiser steps until a run's checkpoint."""
    return 0 if checkpoint is None else _step(checkpoint)


def tokens_seen(checkpoint: Path | None) -> int:
    """By the run until its checkpoint."""
    if checkpoint is None:
        return 0
    return int(json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))["num_input_tokens_seen"])


def _checkpoints(directory: Path) -> list[Path]:
    return [path for path in directory.glob(f"{_PREFIX}*") if path.is_dir() and path.name[len(_PREFIX) :].isdigit()]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name[len(_PREFIX) :])


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
