"""Options of `hotprompt bench train`, checked all at once. Starts nothing."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.errors import WrongUsage
from benchmarks.options import read_choice, read_number
from benchmarks.training_rows import ROW_KINDS

DEFAULT_STEPS = 40
DEFAULT_ROUNDS = 1
DEFAULT_HELD_OUT = 60
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainBenchOptions:
    """What is measured. `data` and `eval_data` are files, or a kind of rows to make up (`eval_data` None)."""

    base: str
    data: str
    eval_data: Path | None
    device: str
    steps: int
    rounds: int
    held_out: int
    """Rows made up to be held out."""
    learning_rate: float | None
    out: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainBenchFlags:
    """The flags as they were typed; None where one was not."""

    base: str | None = None
    data: str | None = None
    eval_data: Path | None = None
    device: str | None = None
    steps: str | None = None
    rounds: str | None = None
    held_out: str | None = None
    learning_rate: str | None = None
    out: Path | None = None


def read_train_bench_options(flags: TrainBenchFlags, *, default_base: str, now: datetime) -> TrainBenchOptions:
    """Options from flags. Raises WrongUsage with a line for each problem, naming its flag."""
    problems: list[str] = []
    data = flags.data or "labels"
    if data not in ROW_KINDS:
        if not Path(data).exists():
            problems.append(f"--data {data}: must be a file, or one of {', '.join(ROW_KINDS)}")
        if flags.eval_data is None:
            problems.append("--eval-data: is required with a --data of your own")
    elif flags.eval_data is not None:
        problems.append("--eval-data: goes with a --data of your own only")
    if flags.eval_data is not None and not flags.eval_data.exists():
        problems.append(f"--eval-data {flags.eval_data}: no such file")
    device = read_choice("--device", flags.device or DEVICES[0], DEVICES, problems)
    steps = read_number("--steps", flags.steps, DEFAULT_STEPS, (1, 100_000), problems)
    rounds = read_number("--rounds", flags.rounds, DEFAULT_ROUNDS, (1, 100), problems)
    held_out = read_number("--held-out", flags.held_out, DEFAULT_HELD_OUT, (1, 10_000), problems)
    if flags.held_out is not None and data not in ROW_KINDS:
        problems.append("--held-out: goes with rows that are made up only")
    learning_rate = _read_rate(flags.learning_rate, problems)
    out = flags.out or Path(f"train-bench-{now:%Y%m%d-%H%M%S}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        problems.append(f"--out {out}: is not an empty directory")
    if problems:
        raise WrongUsage(*problems)
    return TrainBenchOptions(
        base=flags.base or default_base,
        data=data,
        eval_data=flags.eval_data,
        device=device,
        steps=steps,
        rounds=rounds,
        held_out=held_out,
        learning_rate=learning_rate,
        out=out,
    )


def _read_rate(text: str | None, problems: list[str]) -> float | None:
    if text is None:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 10:
        problems.append(f"--learning-rate {text}: must be a number above 0 and below 10")
    return rate
