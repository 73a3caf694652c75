"""Perplexity on a tiny base: every way of computing it is near the exact one, and the command prints all of them."""

from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from hotprompt import app
from tests.native import require_native
from tests.tiny import tiny_tokenizer


def test_the_command_prints_what_each_number_type_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_native(tmp_path / "native")
    monkeypatch.setenv("HOTPROMPT_HOME", str(tmp_path))
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=1024,
        eos_token_id=256,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    result = CliRunner().invoke(app, ["bench", "quality", "--base", str(tmp_path / "base")])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == [
        "float32, stock model",
        "bfloat16, stock model",
        "bfloat16, native decoder",
        "int8, native decoder",
    ]
    shares = [float(line.rpartition(" ")[2].rstrip("%")) for line in lines[4:]]
    assert len(shares) == 3
    assert all(abs(share) < 1 for share in shares)


def test_an_unknown_base_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTPROMPT_HOME", str(tmp_path))
    result = CliRunner().invoke(app, ["bench", "quality", "--base", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert "no such directory" in result.stderr
