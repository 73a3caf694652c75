"""What a run leaves beside its adapter: settings that can be read again, metrics, pictures, the evaluation."""

import io
import json
from pathlib import Path
from typing import get_args

import pytest
from rich.console import Console

from tests.tiny import Family
from tests.training.rows import tiny_config, write_jsonl
from training.config_reading import load_train_config
from training.curve_picture import write_curve
from training.errors import TrainingError
from training.methods import Method
from training.run import train
from training.run_directory import open_run
from training.trainer import LossPoint

LABELLED = [{"instruction": f"颜色 {number}", "output": "红" if number % 2 else "绿"} for number in range(8)]


def test_a_run_leaves_its_settings_metrics_and_pictures(tmp_path: Path, bases: dict[Family, Path]) -> None:
    output = io.StringIO()
    config = tiny_config(bases["llama"], tmp_path, LABELLED, eval_data=write_jsonl(tmp_path / "held.jsonl", LABELLED))
    result = train(config, console=Console(file=output))
    run = tmp_path / "run"
    assert load_train_config(run / "config.yaml") == config
    assert (run / "config.yaml").read_text(encoding="utf-8").rstrip() in output.getvalue()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "loss" in line]
    measured = [line for line in lines if "held_out_loss" in line]
    assert [line["step"] for line in logged] == [1, 2, 3]
    assert [line["loss"] for line in logged] == [point.loss for point in result.losses]
    assert all({"epoch", "learning_rate", "grad_norm", "tokens", "seconds"} <= line.keys() for line in logged)
    assert [line["step"] for line in measured[:4]] == [0, 1, 2, 3]
    facts = result.manifest.training
    assert facts is not None
    assert facts.evaluation is not None
    assert logged[-1]["tokens"] == facts.tokens
    assert (measured[0]["held_out_loss"], measured[-1]["held_out_loss"]) == (
        facts.evaluation.loss_before,
        facts.evaluation.loss_after,
    )
    assert {score.name for score in facts.evaluation.scores} >= {"loss", "label_accuracy", "macro_f1"}
    assert json.loads((run / "evaluation.json").read_text())["labels"] == ["红", "绿"]
    for picture in ("loss.png", "confusion.png"):
        assert (run / picture).read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (run / "loss.svg").read_text()
    assert "tokens/s  0:00:0" in output.getvalue()


@pytest.mark.parametrize("method", get_args(Method))
def test_the_settings_of_every_method_can_be_read_again(method: str, tmp_path: Path) -> None:
    settings = {"name": "x", "data": "rows.jsonl", "run_dir": tmp_path / "run", "method": method}
    config = load_train_config(None, [], settings)
    assert load_train_config(open_run(config).config) == config


def test_metrics_go_on_from_a_checkpoint_without_what_came_after_it(tmp_path: Path) -> None:
    run = open_run(load_train_config(None, [], {"name": "x", "data": "rows.jsonl", "run_dir": tmp_path / "run"}))
    for step in (1, 2, 3):
        run.note({"step": step, "loss": float(step)})
        run.note({"step": step, "held_out_loss": step / 2})
    with run.metrics.open("a") as file:
        file.write('{"step": 4, "lo')  # torn
    run.go_on_from(2)
    run.note({"step": 3, "held_out_loss": 9.0})
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [(line["step"], "loss" in line) for line in lines] == [
        (1, True),
        (1, False),
        (2, True),
        (2, False),
        (3, False),
    ]
    assert run.held_out_losses() == {1: 0.5, 2: 1.0, 3: 9.0}
    run.go_on_from(0)
    assert run.metrics.read_text() == ""


def test_runs_of_one_name_do_not_share_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTPROMPT_HOME", str(tmp_path))
    config = load_train_config(None, [], {"name": "x", "data": "rows.jsonl"})
    runs = [open_run(config), open_run(config)]
    assert len({run.path for run in runs}) == 2
    assert all(run.path.parent == tmp_path / "runs" for run in runs)


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = load_train_config(None, [], {"name": "x", "data": "rows.jsonl", "run_dir": tmp_path / "file" / "run"})
    with pytest.raises(TrainingError, match="cannot be written: Not a directory"):
        open_run(config)
    with pytest.raises(TrainingError, match="cannot be written"):
        write_curve([tmp_path / "file" / "a.png"], title="x", losses=[LossPoint(1, 2.0)], held_out=[])
