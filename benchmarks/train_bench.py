"""`hotprompt bench train`: hotprompt and the reference recipe in turn, on the same rows. Trains in other processes."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file

from adapters.base_model import load_weights
from benchmarks.errors import SideFailed
from benchmarks.training_options import TrainBenchOptions
from benchmarks.training_rows import ROW_KINDS, write_rows
from benchmarks.training_side import PROMPT, Job, SideName, SideResult
from training.batch_loss import choose_batch_loss
from training.examples import Collator, Example
from training.model import add_adapter
from training.prepare import prepare_run

NUM_MADE_UP = 1000
_SNAPSHOTS = 20
_ROWS_PER_BATCH = 16
_MIB = 1 << 20
_SIDES: tuple[SideName, ...] = ("reference", "hotprompt")
"""In their turn: the reference sets the loss that is to be reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SideFigures:
    """Of one run. Losses are nats per held-out answer token, in float32.

    `curve` has (step, seconds, loss) as far as the loss was taken: until it is low enough, and at the end.
    """

    side: SideName
    round: int
    dtype: str
    tokens_per_second: float
    seconds: float
    peak_mib: float
    whole_mib: float
    final_loss: float
    seconds_to_reference: float | None
    curve: tuple[tuple[int, float, float], ...]


def bench_train(options: TrainBenchOptions, *, say: Callable[[str], None]) -> list[SideFigures]:
    """Run both sides in turn, as often as asked; write results.json and results.md. Raises SideFailed."""
    options.out.mkdir(parents=True, exist_ok=True)
    data, eval_data = _data(options)
    judge = _Judge(options, data, eval_data)
    figures: list[SideFigures] = []
    for number in range(1, options.rounds + 1):
        goal: float | None = None
        for side in _SIDES:
            job = _job(side, number, options, data, eval_data)
            say(f"round {number}: {side}, {options.steps} steps")
            result = _run(job)
            measured = _figures(job, result, judge, number, goal)
            goal = measured.final_loss if goal is None else goal
            figures.append(measured)
            say(_line(measured))
    (options.out / "results.json").write_text(json.dumps([asdict(each) for each in figures], indent=2) + "\n")
    (options.out / "results.md").write_text(results_table(figures) + "\n", encoding="utf-8")
    return figures


def results_table(figures: Sequence[SideFigures]) -> str:
    """Medians of the rounds as Markdown, and hotprompt's as multiples of the reference's."""
    reference, ours = ([each for each in figures if each.side == side] for side in _SIDES)
    rows = [
        ("tokens/s, real ones", *_medians(reference, ours, lambda each: each.tokens_per_second)),
        ("seconds to the reference's loss", *_medians(reference, ours, lambda each: each.seconds_to_reference)),
        ("peak MiB above the loaded model", *_medians(reference, ours, lambda each: each.peak_mib)),
        ("peak MiB of the whole process", *_medians(reference, ours, lambda each: each.whole_mib)),
        ("held-out loss at the end", *_medians(reference, ours, lambda each: each.final_loss)),
    ]
    header = ["| | reference | hotprompt | hotprompt / reference |", "| --- | ---: | ---: | ---: |"]
    return "\n".join(header + [_row(*row) for row in rows])


def _row(name: str, reference: float | None, ours: float | None) -> str:
    ratio = "" if reference is None or ours is None or not reference else f"{ours / reference:.2f}"
    shown = ["not reached" if value is None else f"{value:,.3f}" for value in (reference, ours)]
    return f"| {name} | {shown[0]} | {shown[1]} | {ratio} |"


def _medians(
    reference: Sequence[SideFigures], ours: Sequence[SideFigures], of: Callable[[SideFigures], float | None]
) -> tuple[float | None, float | None]:
    return _median([of(each) for each in reference]), _median([of(each) for each in ours])


def _median(values: Sequence[float | None]) -> float | None:
    """None where one of the rounds has none."""
    known = [value for value in values if value is not None]
    return median(known) if len(known) == len(values) else None


class _Judge:
    """The held-out loss of a prompt, in float32, by one model for both sides."""

    def __init__(self, options: TrainBenchOptions, data: Path, eval_data: Path) -> None:
        config = _job("hotprompt", 0, options, data, eval_data).train_config()
        run = prepare_run(config, Console(stderr=True))
        device = torch.device(options.device)
        weights = load_weights(run.base.path, dtype=torch.float32, device=device)
        self._model = add_adapter(weights, run.base, config, run.train.answered)
        self._loss = choose_batch_loss(
            self._model, packing=True, device=device, batch_size=_ROWS_PER_BATCH, tokens_per_pack=None
        )
        self._batches = list(_batches(run.held_out or [], pad_id=run.base.tokenizer.eos_token_id))

    def loss(self, prompt: torch.Tensor) -> float:
        """Nats per answer token."""
        encoder: Any = self._model.prompt_encoder
        weight: torch.Tensor = encoder[self._model.active_adapter].embedding.weight
        total, count = 0.0, 0
        with torch.no_grad():
            weight.copy_(prompt)
            for batch in self._batches:
                on_device = {name: tensor.to(weight.device) for name, tensor in batch.items()}
                total += sum(piece.item() for piece in self._loss.pieces(on_device))
                count += int((batch["labels"][:, 1:] >= 0).sum())
        return total / count


def _batches(examples: Sequence[Example], *, pad_id: int) -> list[dict[str, torch.Tensor]]:
    ordered = sorted(examples, key=lambda example: example.length)
    collate = Collator(pad_id)
    groups = [ordered[start : start + _ROWS_PER_BATCH] for start in range(0, len(ordered), _ROWS_PER_BATCH)]
    return [collate([example.features() for example in group]) for group in groups]


def _data(options: TrainBenchOptions) -> tuple[Path, Path]:
    if options.eval_data is not None:
        return Path(options.data), options.eval_data
    assert options.data in ROW_KINDS
    return (
        write_rows(options.data, options.out / "train.jsonl", count=NUM_MADE_UP, seed=1),
        write_rows(options.data, options.out / "held_out.jsonl", count=options.held_out, seed=2),
    )


def _job(side: SideName, number: int, options: TrainBenchOptions, data: Path, eval_data: Path) -> Job:
    return Job(
        side=side,
        base=options.base,
        data=data,
        eval_data=eval_data,
        device="cuda" if options.device == "cuda" else "cpu",
        steps=options.steps,
        snapshot_steps=max(1, options.steps // _SNAPSHOTS),
        learning_rate=options.learning_rate,
        directory=options.out / f"{side}-{number}",
    )


def _run(job: Job) -> SideResult:
    job.directory.mkdir(parents=True)
    job_file = job.directory / "job.json"
    job_file.write_text(job.model_dump_json(indent=2) + "\n")
    log = job.directory / "log"
    with open(log, "wb") as output:
        command = [sys.executable, "-m", "benchmarks.training_side", str(job_file)]
        done = subprocess.run(command, stdout=output, stderr=output, check=False)
    if done.returncode:
        lines = log.read_text(errors="replace").strip().splitlines() or ["it wrote nothing"]
        raise SideFailed(f"{job.side} ended with exit code {done.returncode}: {lines[-1][:300]} ({log})")
    return SideResult.model_validate_json(job.result_file.read_text())


def _figures(job: Job, result: SideResult, judge: _Judge, number: int, goal: float | None) -> SideFigures:
    """`goal` is the loss to reach; None is the side's own at its end."""
    curve: list[tuple[int, float, float]] = []
    for each in result.snapshots:
        is_last = each is result.snapshots[-1]
        is_decided = goal is None or (curve and curve[-1][2] <= goal)
        if is_last or not is_decided:
            curve.append((each.step, each.seconds, judge.loss(load_file(job.snapshot_file(each.step))[PROMPT])))
    final = curve[-1][2]
    wanted = final if goal is None else goal
    return SideFigures(
        side=result.side,
        round=number,
        dtype=result.dtype,
        tokens_per_second=result.tokens / result.seconds,
        seconds=result.seconds,
        peak_mib=result.peak_bytes / _MIB,
        whole_mib=result.whole_bytes / _MIB,
        final_loss=final,
        seconds_to_reference=next((seconds for _, seconds, loss in curve if loss <= wanted), None),
        curve=tuple(curve),
    )


def _line(figures: SideFigures) -> str:
    return (
        f"  {figures.dtype}: {figures.tokens_per_second:,.0f} tokens/s, {figures.seconds:,.1f} s, "
        f"{figures.peak_mib:,.0f} MiB above the model, {figures.whole_mib:,.0f} in all, "
        f"held-out loss {figures.final_loss:.4f}"
    )
