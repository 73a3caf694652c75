"""`python -m benchmarks.training_defaults` on a tiny base: what it tries, prints and refuses."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.training_defaults import main
from benchmarks.tried_settings import GRIDS, read_tries
from tests.tiny import save_tiny_base
from tests.training.rows import ENGLISH, write_jsonl
from training.config_reading import load_train_config
from training.errors import ConfigError

app = typer.Typer()
app.command()(main)


def test_every_combination_is_trained_and_judged(tmp_path: Path) -> None:
    base = save_tiny_base("llama", tmp_path / "tiny")
    rows = write_jsonl(tmp_path / "rows.jsonl", ENGLISH)
    flags = ["--data", str(rows), "--base", str(base), "--steps", "2", "--held-out", "5", "--batch-size", "2"]
    tries = ["--method", "lora", "--try", "lora_r=2,4", "--try", "learning_rate=0.001"]
    printed = CliRunner().invoke(app, [*flags, *tries])
    assert printed.exit_code == 0, printed.output
    head, line, first, second = printed.output.splitlines()
    assert [len(each.split("|")) for each in (head, line, first, second)] == [7] * 4
    assert first.startswith("| `lora` | lora_r 2, learning_rate 0.001 | ")
    assert second.startswith("| `lora` | lora_r 4, learning_rate 0.001 | ")
    refused = CliRunner().invoke(app, [*flags, "--method", "ia3", "--try", "lora_r=2"])
    assert refused.exit_code == 2
    assert "lora_r: means nothing to method ia3" in refused.output


@pytest.mark.parametrize("method", GRIDS)
def test_each_methods_own_grid_is_of_legal_runs(method: str) -> None:
    for key, values in read_tries(method, []).items():
        for value in values:
            load_train_config(None, [], {"data": "x.jsonl", "name": "x", "method": method, key: value})


def test_what_is_no_grid_is_refused() -> None:
    with pytest.raises(ConfigError, match="--method qlora: must be one of prompt_tuning, "):
        read_tries("qlora", [])
    with pytest.raises(ConfigError, match="--try lora_r: must be key=value,value"):
        read_tries("lora", ["lora_r"])
