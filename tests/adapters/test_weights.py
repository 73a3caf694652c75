"""Adapters made by PEFT load here with PEFT's values; files that do not fit each other or the base are refused."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel, PromptEncoderConfig, TaskType, get_peft_model

from adapters.errors import AdapterIncompatible, AdapterInvalid
from adapters.files import AdapterFiles, read_adapter_directory
from adapters.manifest import ManifestDraft
from adapters.tensor_file import WEIGHTS_FILE
from adapters.weights import Adapter, check_compatible, read_adapter
from tests.adapters.making import (
    adapter_files,
    base_identity,
    peft_config,
    random_rows,
    safetensors_bytes,
    tensor_bytes,
)
from tests.tiny import HIDDEN_SIZE, Family, load_peft, rows_of, save_tiny_adapter, tiny_model


def peft_prompt(model: PeftModel) -> torch.Tensor:
    """`[num_virtual_tokens, hidden_size]`: what PEFT itself puts before a prompt."""
    prompt: torch.Tensor = model.get_prompt(batch_size=1)
    return prompt[0].detach()


def adapter_of(rows: torch.Tensor) -> Adapter:
    return read_adapter("a", AdapterFiles(peft_config(num_virtual_tokens=rows.shape[0]), tensor_bytes(rows)))


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
def test_prompt_tuning_made_by_peft(tmp_path: Path, family: Family) -> None:
    save_tiny_adapter(tiny_model(family), tmp_path, num_virtual_tokens=5, seed=1)
    adapter = read_adapter("a", read_adapter_directory(tmp_path))
    assert adapter.manifest.kind == "prompt_tuning"
    assert (adapter.manifest.num_virtual_tokens, adapter.manifest.hidden_size) == (5, HIDDEN_SIZE)
    assert torch.equal(rows_of(adapter), peft_prompt(load_peft(tiny_model(family), tmp_path)))


@pytest.mark.parametrize("reparameterization", ["MLP", "LSTM"])
def test_p_tuning_made_by_peft(tmp_path: Path, reparameterization: str) -> None:
    torch.manual_seed(1)
    config = PromptEncoderConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=4,
        encoder_hidden_size=8,
        encoder_reparameterization_type=reparameterization,
    )
    get_peft_model(tiny_model("llama"), config).save_pretrained(str(tmp_path))
    adapter = read_adapter("a", read_adapter_directory(tmp_path))
    assert adapter.manifest.kind == "p_tuning"
    assert torch.equal(rows_of(adapter), peft_prompt(load_peft(tiny_model("llama"), tmp_path)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rows_are_read_in_every_dtype_as_float32(dtype: torch.dtype) -> None:
    rows = random_rows().to(dtype)
    soft_prompt = adapter_of(rows).injection
    assert rows_of(adapter_of(rows)).dtype == torch.float32
    assert torch.equal(rows_of(adapter_of(rows)), rows.float())
    assert (soft_prompt.num_virtual_tokens, soft_prompt.num_bytes) == (3, 3 * 4 * 4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e5, -1e38])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_that_are_not_finite_in_float16_are_refused(value: float, dtype: torch.dtype) -> None:
    rows = random_rows()
    rows[2, 3] = value
    with pytest.raises(AdapterInvalid, match=rf"^{WEIGHTS_FILE}: holds"):
        adapter_of(rows.to(dtype))


def test_the_number_of_rows_must_be_the_configs() -> None:
    files = AdapterFiles(peft_config(num_virtual_tokens=4), tensor_bytes(random_rows(num_virtual_tokens=3)))
    with pytest.raises(AdapterInvalid, match=r"has 3 rows, adapter_config\.json says num_virtual_tokens 4"):
        read_adapter("a", files)


def test_the_width_must_be_the_configs() -> None:
    files = AdapterFiles(peft_config(token_dim=8), tensor_bytes(random_rows()))
    with pytest.raises(AdapterInvalid, match=r"4 wide, adapter_config\.json says token_dim 8"):
        read_adapter("a", files)


def test_a_lora_in_disguise_is_refused() -> None:
    files = AdapterFiles(peft_config(), tensor_bytes(random_rows(), name="base_model.model.q_proj.lora_A.weight"))
    with pytest.raises(AdapterInvalid, match="lacks the tensor 'prompt_embeddings'; it holds 'base_model"):
        read_adapter("a", files)


def test_what_only_the_library_refuses_is_refused() -> None:
    """Half a surrogate pair is text to our JSON reader and none to the library's."""
    entry = b'"prompt_embeddings": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}'
    header = b'{"__metadata__": {"a": "\\ud800"}, ' + entry + b"}"
    with pytest.raises(AdapterInvalid, match="not a safetensors file"):
        read_adapter("a", AdapterFiles(peft_config(), safetensors_bytes(header, bytes(48))))


def test_the_record_says_what_the_files_say() -> None:
    draft = ManifestDraft(base=base_identity())
    adapter = read_adapter("a", adapter_files(manifest=draft.model_dump_json().encode()))
    assert adapter.manifest.name == "a"
    assert adapter.manifest.base == base_identity()
    assert adapter.manifest.digest == adapter.injection.digest
    assert adapter.manifest.digest != read_adapter("a", adapter_files()).manifest.digest


def test_writing_the_record_beside_the_files_does_not_change_the_digest() -> None:
    files = adapter_files()
    manifest = read_adapter("a", files).manifest
    with_record = dataclasses.replace(files, manifest=manifest.to_json())
    assert read_adapter("b", with_record).manifest == manifest.model_copy(update={"name": "b"})


def test_another_width_than_the_bases_is_incompatible() -> None:
    manifest = read_adapter("a", adapter_files()).manifest
    check_compatible(manifest, base_identity())
    with pytest.raises(AdapterIncompatible, match="rows are 4 wide, the base model tiny needs 8"):
        check_compatible(manifest, base_identity(hidden_size=8))


def test_another_base_than_the_recorded_one_is_incompatible() -> None:
    draft = ManifestDraft(base=base_identity())
    manifest = read_adapter("a", adapter_files(manifest=draft.model_dump_json().encode())).manifest
    check_compatible(manifest, base_identity())
    with pytest.raises(AdapterIncompatible, match="made for the base tiny"):
        check_compatible(manifest, base_identity(fingerprint="0" * 64))
    with pytest.raises(AdapterIncompatible, match="another tokenizer"):
        check_compatible(manifest, base_identity().model_copy(update={"tokenizer_fingerprint": "0" * 64}))


def test_peft_loads_what_the_store_keeps(tmp_path: Path) -> None:
    """The record beside PEFT's two files does not disturb PEFT."""
    save_tiny_adapter(tiny_model("llama"), tmp_path, num_virtual_tokens=2, seed=3)
    files = read_adapter_directory(tmp_path)
    manifest = read_adapter("a", files).manifest
    (tmp_path / "hotprompt.json").write_bytes(manifest.to_json())
    assert json.loads(manifest.to_json())["format_version"] == 1
    prompt = peft_prompt(load_peft(tiny_model("llama"), tmp_path))
    assert torch.equal(rows_of(read_adapter("a", files)), prompt)
