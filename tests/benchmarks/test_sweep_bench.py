"""`hotprompt bench sweep` on a tiny base: both ways are run, and give the same losses."""

import pytest
from typer.testing import CliRunner

from hotprompt import app
from tests.tiny import save_tiny_base


@pytest.mark.slow
def test_both_ways_give_the_same_losses(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = save_tiny_base("llama", tmp_path_factory.mktemp("base") / "tiny")
    result = CliRunner().invoke(app, ["bench", "sweep", "--base", str(base), "--steps", "2", "--batch-size", "2"])
    assert result.exit_code == 0, result.output
    assert "6 prompts, 2 steps of 2 rows" in result.output
    gap = float(result.output.rsplit(" ", 1)[1])
    assert gap < 0.05  # bfloat16
