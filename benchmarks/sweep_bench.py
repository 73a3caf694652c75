"""`hotprompt bench sweep`: prompts trained together against the same runs one after another. Chooses no winner."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from adapters.base_model import choose_dtype, load_weights
from benchmarks.training_rows import ROW_KINDS, write_rows
from training.config_reading import load_train_config
from training.prepare import prepare_run
from training.sweep import run_sweep, short_runs, try_alone

RATES = (0.003, 0.01, 0.03)
INITS = ("text", "vocab")
_ROWS, _HELD_OUT = 400, 32


@dataclass(frozen=True, slots=True)
class SweepFigures:
    """Seconds of one sweep each way, in turn, with nothing dropped; `largest_gap` between a candidate's two losses."""

    candidates: int
    steps: int
    rows_of_step: int
    dtype: str
    together: float
    one_by_one: float
    largest_gap: float

    @property
    def ratio(self) -> float:
        return self.together / self.one_by_one


def bench_sweep(
    base: str, *, device: str, steps: int, rows: str, rows_of_step: int, say: Callable[[str], None]
) -> SweepFigures:
    """Six prompts, three rates by two starts, for `steps` optimiser steps of `rows_of_step` rows that are made up.

    Raises TrainingError and BaseModelError.
    """
    assert rows in ROW_KINDS
    place = torch.device(device)
    with tempfile.TemporaryDirectory(prefix="hotprompt-bench-") as name:
        directory = Path(name)
        config = load_train_config(
            None,
            [],
            {
                "base": base,
                "data": write_rows(rows, directory / "train.jsonl", count=_ROWS, seed=1),
                "eval_data": write_rows(rows, directory / "held_out.jsonl", count=_HELD_OUT, seed=2),
                "name": "bench",
                "store": directory / "store",
                "device": device,
                "per_device_train_batch_size": rows_of_step,
                "sweep": {"learning_rate": RATES, "init": INITS},
                "sweep_steps": steps,
                "sweep_halving": False,
            },
        )
        quiet = Console(quiet=True)
        run = prepare_run(config, quiet)
        dtype = choose_dtype(config.dtype, place)
        weights = load_weights(run.base.path, dtype=dtype, device=place)
        say(f"together: {len(RATES) * len(INITS)} prompts, {steps} steps of {rows_of_step} rows")
        start = time.perf_counter()
        sweep = run_sweep(run, config, weights, device=place, console=quiet)
        together = time.perf_counter() - start
        alone = []
        start = time.perf_counter()
        for candidate in short_runs(run, config):
            say(f"alone: {candidate.label}")
            alone.append(try_alone(run, candidate, weights, device=place, output_dir=directory, console=quiet))
        one_by_one = time.perf_counter() - start
    gaps = [abs(a.held_out_loss - b.held_out_loss) for a, b in zip(sweep.tried, alone, strict=True)]
    return SweepFigures(
        candidates=len(alone),
        steps=steps,
        rows_of_step=rows_of_step,
        dtype=str(dtype).removeprefix("torch."),
        together=together,
        one_by_one=one_by_one,
        largest_gap=max(gaps),
    )
