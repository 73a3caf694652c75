"""What every method of the trainer publishes answers in the server as PEFT's own path did."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from adapters.files import read_adapter_directory
from tests.server.building import multipart
from tests.server.conftest import Served
from tests.tiny import save_tiny_base, tiny_tokenizer
from tests.training.rows import tiny_config
from training.run import train

METHODS = ["prompt_tuning", "p_tuning", "prefix_tuning", "multitask_prompt_tuning", "lora", "ia3"]


@pytest.mark.slow
async def test_trained_adapters_answer_their_probes(served: Served, tmp_path: Path) -> None:
    base = save_tiny_base("llama", tmp_path / "tiny-llama")
    tokenizer = tiny_tokenizer()
    _, client = served
    for method in METHODS:
        config = tiny_config(
            base, tmp_path, name=method, method=method, max_steps=20, learning_rate=0.05, prompt_tuning_init_text=None
        )
        result = train(config, console=Console(file=io.StringIO()))
        assert result.manifest.probes is not None
        files = read_adapter_directory(result.path)
        made = await client.post("/v1/adapters", data={"name": method}, files=multipart(files))
        assert made.status_code == 201, made.text
        for probe in result.manifest.probes.items:
            body = {"model": method, "prompt": list(probe.prompt_ids), "temperature": 0, "max_tokens": 16}
            response = await client.post("/v1/completions", json=body)
            text = response.json()["choices"][0]["text"]
            assert text == tokenizer.decode(list(probe.expected_ids), skip_special_tokens=True), method
