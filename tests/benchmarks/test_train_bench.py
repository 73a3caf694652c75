"""`hotprompt bench train` on a tiny base: both sides, their figures and tables, and what is refused."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from benchmarks.errors import WrongUsage
from benchmarks.train_bench import SideFigures, results_table
from benchmarks.training_memory import PeakMemory
from benchmarks.training_options import TrainBenchFlags, read_train_bench_options
from benchmarks.training_rows import ROW_KINDS, write_rows
from benchmarks.training_side import PROMPT, Job, SideName, run_side
from hotprompt import app
from tests.tiny import save_tiny_base
from training.data import read_rows


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base("llama", tmp_path_factory.mktemp("bases") / "tiny-llama")


@pytest.mark.parametrize("kind", sorted(ROW_KINDS))
def test_made_up_rows_are_rows_and_follow_the_seed(tmp_path: Path, kind: str) -> None:
    rows = read_rows(write_rows(kind, tmp_path / "one.jsonl", count=20, seed=1))
    assert len(rows) == 20
    assert read_rows(write_rows(kind, tmp_path / "same.jsonl", count=20, seed=1)) == rows
    assert read_rows(write_rows(kind, tmp_path / "other.jsonl", count=20, seed=2)) != rows


def test_both_sides_see_the_same_tokens_and_start_from_the_same_prompt(tmp_path: Path, base: Path) -> None:
    data = write_rows("labels", tmp_path / "train.jsonl", count=40, seed=1)
    held_out = write_rows("labels", tmp_path / "held_out.jsonl", count=4, seed=2)
    sides: tuple[SideName, ...] = ("reference", "hotprompt")
    results, prompts = [], []
    for side in sides:
        (tmp_path / side).mkdir()
        job = Job(
            side=side,
            base=str(base),
            data=data,
            eval_data=held_out,
            device="cpu",
            steps=3,
            snapshot_steps=2,
            learning_rate=1e-3,
            directory=tmp_path / side,
        )
        results.append(run_side(job))
        prompts.append(load_file(job.snapshot_file(3))[PROMPT])
    reference, ours = results
    assert reference.dtype == "float32"
    assert reference.tokens == ours.tokens > 0
    assert [each.step for each in ours.snapshots] == [2, 3]
    assert 0 < ours.snapshots[0].seconds < ours.snapshots[1].seconds == ours.seconds
    assert reference.peak_bytes >= 0
    assert prompts[0].shape == prompts[1].shape
    assert float((prompts[0] - prompts[1]).abs().max()) < 0.02


def test_peak_memory_is_that_above_the_start() -> None:
    memory = PeakMemory([torch.zeros(1000)], torch.device("cpu"))
    size = 64 << 20
    block = torch.ones(size // 4)
    del block
    assert size // 2 < memory.above() < 4 * size
    assert memory.above() < memory.whole()


def test_the_table_compares_medians() -> None:
    figures = [_figures("reference", 1, 100.0, 8.0), _figures("hotprompt", 1, 500.0, 2.0)]
    assert "| tokens/s, real ones | 100.000 | 500.000 | 5.00 |" in results_table(figures)
    assert "| seconds to the reference's loss | 8.000 | 2.000 | 0.25 |" in results_table(figures)
    figures.append(_figures("hotprompt", 2, 600.0, None))
    assert "| seconds to the reference's loss | 8.000 | not reached |  |" in results_table(figures)


def _figures(side: SideName, number: int, speed: float, reached: float | None) -> SideFigures:
    return SideFigures(
        side=side,
        round=number,
        dtype="float32",
        tokens_per_second=speed,
        seconds=10.0,
        peak_mib=100.0,
        whole_mib=1000.0,
        final_loss=1.0,
        seconds_to_reference=reached,
        curve=(),
    )


def test_wrong_flags_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    flags = TrainBenchFlags(
        data="nothing", device="tpu", steps="0", rounds="x", held_out="2", learning_rate="-1", out=tmp_path / "full"
    )
    with pytest.raises(WrongUsage) as refused:
        read_train_bench_options(flags, default_base="b", now=datetime.now(UTC))
    named = [problem.split()[0].rstrip(":") for problem in refused.value.problems]
    assert named == [
        "--data",
        "--eval-data",
        "--device",
        "--steps",
        "--rounds",
        "--held-out",
        "--learning-rate",
        "--out",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(ROW_KINDS))
def test_the_command_measures_both_sides(tmp_path: Path, base: Path, kind: str) -> None:
    out = tmp_path / "results"
    arguments = ["--base", str(base), "--data", kind, "--steps", "4", "--held-out", "8", "--out", str(out)]
    done = CliRunner().invoke(app, ["bench", "train", *arguments])
    assert done.exit_code == 0, done.output
    figures = json.loads((out / "results.json").read_text())
    assert [each["side"] for each in figures] == ["reference", "hotprompt"]
    assert all(each["tokens_per_second"] > 0 for each in figures)
    assert figures[0]["seconds_to_reference"] is not None
    assert len(figures[0]["curve"]) == 1
    assert figures[1]["curve"][-1][0] == 4
    assert (out / "results.md").read_text().strip() in done.output


@pytest.mark.slow
def test_a_side_that_fails_says_why(tmp_path: Path) -> None:
    rows = write_rows("labels", tmp_path / "rows.jsonl", count=4, seed=1)
    arguments = ["--base", str(tmp_path / "none"), "--data", str(rows), "--eval-data", str(rows)]
    done = CliRunner().invoke(app, ["bench", "train", *arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "no such directory" in done.output
