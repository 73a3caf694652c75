"""A random base of a known shape, served by the engine; `bench decode` on it, and what it says where it cannot run."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from typer.testing import CliRunner, Result

from adapters.base_model import load_weights, open_base_model
from benchmarks.bandwidth import copy_bandwidth
from benchmarks.decode import DecodeSpeed, decode_table
from benchmarks.kv_size import block_tokens, bytes_per_token
from benchmarks.random_base import write_random_base
from benchmarks.shapes import SHAPES
from hotprompt import app

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def random_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bases") / "tiny"
    write_random_base(SHAPES["tiny"](), directory, shard_bytes=100_000)
    return directory


def _bench(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", "decode", *map(str, arguments)])


def test_a_random_base_is_a_base_model(random_base: Path) -> None:
    assert len(list(random_base.glob("*.safetensors"))) > 1
    base = open_base_model(str(random_base), home=random_base)
    model: Any = load_weights(base.path, dtype=torch.bfloat16, device=torch.device("cpu"))
    assert model.config.model_type == "llama"
    weight = model.get_input_embeddings().weight
    assert 0.015 < float(weight.float().std()) < 0.025
    assert len(base.tokenizer) == len(weight) == 1024
    ids = base.tokenizer("Hello, wörld")["input_ids"]
    assert base.tokenizer.decode(ids) == "Hello, wörld"
    assert base.tokenizer.decode([300, 301]) == " w2c w2d"
    assert base.tokenizer.eos_token_id == 1023


@pytest.mark.parametrize(("shape", "billions"), [("llama-3.1-8b", 8.03), ("qwen2.5-0.5b", 0.494)])
def test_shapes_have_the_size_of_their_models(shape: str, billions: float) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(SHAPES[shape]())
    assert model.num_parameters() / 1e9 == pytest.approx(billions, rel=0.002)


def test_tied_embeddings_are_written_once(tmp_path: Path) -> None:
    config = SHAPES["tiny"]()
    config.tie_word_embeddings = True
    write_random_base(config, tmp_path)
    model: Any = load_weights(tmp_path, dtype=torch.bfloat16, device=torch.device("cpu"))
    assert model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert AutoConfig.from_pretrained(tmp_path).tie_word_embeddings


def test_the_command_writes_a_base_and_refuses_what_is_there(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.random_base", "--shape"]
    good = subprocess.run([*command, "tiny", str(tmp_path / "new")], cwd=ROOT, capture_output=True, text=True)
    assert good.returncode == 0, good.stderr
    assert (tmp_path / "new" / "config.json").exists()
    bad = subprocess.run([*command, "huge", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert bad.returncode == 2
    assert [line.split()[1] for line in bad.stderr.splitlines()] == ["--shape", f"{tmp_path}:"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_decoding_is_measured_on_the_cpu_too(
    dtype: str, random_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTPROMPT_HOME", str(tmp_path))
    size = ["--sequences", "1,3", "--context", 40, "--steps", 5]
    result = _bench("--base", random_base, "--device", "cpu", "--dtype", dtype, *size)
    assert result.exit_code == 0, result.stderr
    _, _, *rows = result.stdout.splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[:2] for row in cells] == [["1", "51"], ["3", "51"]]
    for _, _, tokens_per_second, step, floor, share in cells:
        assert float(tokens_per_second) > 0
        assert 0 < float(floor) < float(step)
        assert 0 <= float(share.rstrip("%")) < 100
    assert "weights" in result.stderr


def test_lora_is_measured_beside_the_base(random_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTPROMPT_HOME", str(tmp_path))
    size = ["--sequences", "1,3", "--context", 40, "--steps", 3, "--lora", 2]
    result = _bench("--base", random_base, "--device", "cpu", "--dtype", "float32", *size)
    assert result.exit_code == 0, result.stderr
    speeds, lora = result.stdout.strip().split("\n\n")
    assert len(speeds.splitlines()) == len(lora.splitlines()) == 2 + 2
    for row, (sequences, adapters) in zip(lora.splitlines()[2:], ((1, 1), (3, 2)), strict=True):
        cells = [float(cell) for cell in row.strip("|").split("|")]
        assert cells[:2] == [sequences, adapters]
        assert cells[4] == pytest.approx(cells[3] / cells[2], abs=0.02)
    assert "3 sequences over 2 LoRA adapters: " in result.stderr


def test_without_a_cuda_device_nothing_is_measured_and_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = _bench()
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "no CUDA device here, so nothing was measured" in result.stderr


def test_wrong_flags_are_told_at_once(random_base: Path) -> None:
    result = _bench("--device", "tpu", "--sequences", "0", "--context", "9")
    assert result.exit_code == 2
    assert [line.split()[1] for line in result.stderr.splitlines()] == ["--device", "--sequences", "--context"]
    too_long = _bench("--base", random_base, "--device", "cpu", "--dtype", "float32", "--context", 2040)
    assert too_long.exit_code == 2
    assert "--context 2040" in too_long.stderr


def test_the_table_says_how_near_the_floor_is() -> None:
    speed = DecodeSpeed(sequences=4, keys=1000, step_ms=8.0, floor_ms=6.0, share=0.75)
    assert decode_table([speed]).splitlines()[-1] == "| 4 | 1000 | 500.0 | 8.000 | 6.000 | 75% |"


def test_sizes_of_keys_and_values(random_base: Path) -> None:
    assert bytes_per_token(random_base, torch.bfloat16) == 2 * 2 * 2 * 16 * 2
    if not torch.cuda.is_available():
        assert block_tokens(torch.bfloat16) == 16
    assert copy_bandwidth(torch.device("cpu")) > 1e8
