"""Every kind that is served, made and saved by PEFT on real models, holds PEFT's own numbers here."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import safetensors.torch
import torch
from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn

from adapters.errors import AdapterInvalid, AdapterUnsupported
from adapters.files import AdapterFiles, read_adapter_directory
from adapters.injections import InputScale, KVRows, LowRank, ModuleDelta, OutputScale, SoftPrompt, WeightDelta
from adapters.store import AdapterStore
from adapters.tensor_file import WEIGHTS_FILE
from adapters.weights import Adapter, read_adapter
from tests.tiny import Family, load_peft, rows_of, tiny_model

FAMILIES: tuple[Family, ...] = ("llama", "gpt2", "bloom")
ATTENTION: dict[Family, str] = {"llama": "q_proj", "gpt2": "c_attn", "bloom": "query_key_value"}
FEEDFORWARD: dict[Family, str] = {"llama": "down_proj", "gpt2": "mlp.c_proj", "bloom": "dense_4h_to_h"}


def saved(config: PeftConfig, path: Path, *, family: Family = "llama", seed: int = 0) -> Path:
    """An adapter with random weights, none of them zero, saved by PEFT."""
    model = get_peft_model(tiny_model(family), config)
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(str(path))
    return path


def with_manifest(files: AdapterFiles, **fields: Any) -> AdapterFiles:
    return dataclasses.replace(files, manifest=json.dumps(fields).encode())


def module_of(model: PeftModel, path: str) -> Any:
    return model.get_base_model().get_submodule(path)


def deltas_of(adapter: Adapter) -> Mapping[str, ModuleDelta]:
    assert isinstance(adapter.injection, WeightDelta)
    assert adapter.injection.num_virtual_tokens == adapter.manifest.num_virtual_tokens == 0
    return adapter.injection.modules


def lora(family: Family = "llama", **changes: Any) -> peft.LoraConfig:
    targets = [ATTENTION[family], FEEDFORWARD[family]]
    fields: dict[str, Any] = {"r": 4, "lora_alpha": 6, "target_modules": targets, "fan_in_fan_out": family == "gpt2"}
    return peft.LoraConfig(task_type="CAUSAL_LM", **fields | changes)


LORAS: list[dict[str, Any]] = [
    {},
    {"use_rslora": True},
    {"lora_dropout": 0.5, "init_lora_weights": "gaussian"},
    {"target_modules": "all-linear"},
    {"target_modules": r".*\.1\..*(proj|c_attn|query_key_value)"},
    {"layers_to_transform": [0, 2]},
    {"init_lora_weights": "orthogonal"},
    {"init_lora_weights": "mica"},
]


@pytest.mark.parametrize("changes", LORAS, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_lora(family: Family, changes: dict[str, Any], tmp_path: Path) -> None:
    saved(lora(family, **changes), tmp_path, family=family)
    adapter = read_adapter("a", read_adapter_directory(tmp_path))
    assert (adapter.manifest.kind, adapter.manifest.hidden_size) == ("lora", None)
    _assert_peft_lora(deltas_of(adapter), load_peft(tiny_model(family), tmp_path))


@pytest.mark.filterwarnings("ignore:.*(rank|alpha)_pattern")  # PEFT's, of a pattern that no module comes to
@pytest.mark.parametrize("scaling", ["plain", "rank-stabilised"])
@pytest.mark.parametrize(
    "patterns",
    [
        {"q_proj": 2},
        {"model.layers.1.self_attn.q_proj": 2, "q_proj": 3},
        {"^model.layers.0.self_attn.q_proj": 2},
        {r"model\.layers\.\d+\.self_attn\.q_proj": 2},
        {r"layers\.[02]\..*": 2},
        {"(q_proj|down_proj)": 8},
        {"proj": 2},
    ],
    ids=str,
)
def test_lora_with_ranks_and_scales_of_its_own(patterns: dict[str, int], scaling: str, tmp_path: Path) -> None:
    alphas = {pattern: 10 * rank + 1 for pattern, rank in patterns.items()}
    saved(lora(rank_pattern=patterns, alpha_pattern=alphas, use_rslora=scaling != "plain"), tmp_path)
    deltas = deltas_of(read_adapter("a", read_adapter_directory(tmp_path)))
    _assert_peft_lora(deltas, load_peft(tiny_model("llama"), tmp_path))


def _assert_peft_lora(deltas: Mapping[str, ModuleDelta], model: PeftModel) -> None:
    layers = {
        name: module
        for name, module in model.get_base_model().named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }
    assert set(deltas) == set(layers)
    for path, delta in deltas.items():
        assert isinstance(delta, LowRank)
        layer: Any = layers[path]
        assert delta.down.dtype == delta.up.dtype == torch.float32
        assert torch.equal(delta.down, layer.lora_A["default"].weight)
        assert torch.equal(delta.up, layer.lora_B["default"].weight * layer.scaling["default"])
        merged = layer.get_delta_weight("default")
        expected = merged.T if merged.shape != (delta.up @ delta.down).shape else merged
        inputs = torch.randn(3, delta.down.shape[1])
        added = layer(inputs) - layer.get_base_layer()(inputs)
        torch.testing.assert_close(inputs @ (delta.up @ delta.down).T, added, rtol=1e-4, atol=1e-4)
        if expected.shape[0] != expected.shape[1]:  # a square one may be either way round, by fan_in_fan_out
            torch.testing.assert_close(delta.up @ delta.down, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_ia3(family: Family, tmp_path: Path) -> None:
    targets = [ATTENTION[family], FEEDFORWARD[family]]
    config = peft.IA3Config(
        task_type="CAUSAL_LM", target_modules=targets, feedforward_modules=targets[1:], fan_in_fan_out=family == "gpt2"
    )
    saved(config, tmp_path, family=family)
    deltas = deltas_of(read_adapter("a", read_adapter_directory(tmp_path)))
    model = load_peft(tiny_model(family), tmp_path)
    assert len(deltas) == 2 * 3
    for path, delta in deltas.items():
        layer = module_of(model, path)
        base: nn.Module = layer.get_base_layer()
        assert isinstance(delta, InputScale if path.endswith(targets[1]) else OutputScale)
        assert torch.equal(delta.tensors[0], layer.ia3_l["default"].flatten())
        inputs = torch.randn(3, layer.in_features)
        if isinstance(delta, InputScale):
            expected = base(inputs * delta.factors)
        else:
            assert isinstance(delta, OutputScale)
            expected = base(inputs) * delta.factors
        assert torch.equal(layer(inputs), expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["prefix", "projected prefix", "cartridge"])
def test_kv_rows(family: Family, method: str, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 5}
    if method == "cartridge":
        config: PeftConfig = peft.CartridgeConfig(num_frozen_tokens=2, **fields)
    elif method == "prefix":
        config = peft.PrefixTuningConfig(**fields)
    else:
        config = peft.PrefixTuningConfig(prefix_projection=True, encoder_hidden_size=16, **fields)
    saved(config, tmp_path, family=family)
    adapter = read_adapter("a", read_adapter_directory(tmp_path))
    rows = adapter.injection
    assert isinstance(rows, KVRows)
    assert (adapter.manifest.num_virtual_tokens, adapter.manifest.hidden_size) == (5, None)
    heads = 2 if family == "llama" else 4
    assert rows.keys.shape == rows.values.shape == (3, 5, heads, 16)
    cache: Any = load_peft(tiny_model(family), tmp_path).get_prompt(batch_size=1)
    for index, layer in enumerate(cache.layers):  # [1, heads, tokens, head_dim]
        assert torch.equal(rows.keys[index], layer.keys[0].transpose(0, 1))
        assert torch.equal(rows.values[index], layer.values[0].transpose(0, 1))


@pytest.mark.parametrize("task", [0, 2])
def test_multitask_prompt_tuning(task: int, tmp_path: Path) -> None:
    config = peft.MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=5, num_tasks=3, num_ranks=2, prompt_tuning_init="RANDOM"
    )
    saved(config, tmp_path)
    files = read_adapter_directory(tmp_path)
    adapter = read_adapter("a", with_manifest(files, task=task))
    model = load_peft(tiny_model("llama"), tmp_path)
    expected = model.get_prompt(batch_size=1, task_ids=torch.tensor([task]))[0]
    assert torch.equal(rows_of(adapter), expected)
    assert (adapter.manifest.task, adapter.manifest.num_virtual_tokens) == (task, 5)
    assert read_adapter("a", files).manifest.task == 0
    if task:
        assert adapter.manifest.digest != read_adapter("a", files).manifest.digest
    else:
        assert adapter.manifest.digest == read_adapter("a", files).manifest.digest


def test_a_task_that_is_not_there_is_refused(tmp_path: Path) -> None:
    config = peft.MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=2, num_tasks=3, prompt_tuning_init="RANDOM"
    )
    files = read_adapter_directory(saved(config, tmp_path))
    with pytest.raises(AdapterInvalid, match=r"^hotprompt.json: 'task' is 3, adapter_config.json says num_tasks 3"):
        read_adapter("a", with_manifest(files, task=3))
    with pytest.raises(AdapterInvalid, match=r"^hotprompt.json: 'task'"):
        read_adapter("a", with_manifest(files, task=-1))


def test_a_task_of_what_has_none_is_refused(tmp_path: Path) -> None:
    files = read_adapter_directory(saved(lora(), tmp_path))
    with pytest.raises(AdapterInvalid, match=r"^hotprompt.json: 'task' is 1, but LORA has no tasks"):
        read_adapter("a", with_manifest(files, task=1))


def test_cpt(tmp_path: Path) -> None:
    config = peft.CPTConfig(
        task_type="CAUSAL_LM", cpt_token_ids=[1, 2, 3, 4], cpt_mask=[1] * 4, cpt_tokens_type_mask=[1, 2, 3, 4]
    )
    saved(config, tmp_path)
    adapter = read_adapter("a", read_adapter_directory(tmp_path))
    assert isinstance(adapter.injection, SoftPrompt)
    expected = load_peft(tiny_model("llama"), tmp_path).get_prompt(batch_size=1)[0]
    assert torch.equal(rows_of(adapter), expected)
    assert not torch.equal(expected, tiny_model("llama").get_input_embeddings()(torch.tensor([1, 2, 3, 4])))


def test_what_is_published_is_what_peft_saved(tmp_path: Path) -> None:
    """Byte for byte, and PEFT loads it from the store."""
    source = saved(lora(), tmp_path / "made")
    store = AdapterStore(tmp_path / "store")
    adapter = store.publish("a", read_adapter_directory(source))
    kept = store.path_of(adapter.manifest.digest)
    for name in ("adapter_config.json", WEIGHTS_FILE):
        assert (kept / name).read_bytes() == (source / name).read_bytes()
    _assert_peft_lora(deltas_of(store.read("a", adapter.manifest.digest)), load_peft(tiny_model("llama"), kept))


def rewritten(files: AdapterFiles, tensors: dict[str, torch.Tensor], *removed: str) -> AdapterFiles:
    """With some tensors added, replaced or taken away."""
    kept = {name: tensor for name, tensor in safetensors.torch.load(files.weights).items() if name not in removed}
    return dataclasses.replace(files, weights=safetensors.torch.save(kept | tensors))


Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("tensors", "removed", "problem"),
    [
        ({}, f"{Q}.lora_B.weight", rf"lacks the tensor '{Q}\.lora_B\.weight'"),
        ({f"{Q}.lora_C.weight": torch.ones(1)}, "", r"holds 'base_model.*lora_C.weight'; its tensors are named"),
        ({"lora_A.weight": torch.ones(1)}, "", r"holds 'lora_A.weight'"),
        ({"base_model.model.lora_A.weight": torch.ones(4, 4)}, "", r"holds 'base_model.model.lora_A.weight'"),
        ({f"{Q}.lora_A.weight": torch.ones(5, 64)}, "", r"\[5, 64\], adapter_config.json says \[4, 64\] \(rank 4\)"),
        ({f"{Q}.lora_B.weight": torch.ones(64, 5)}, "", r"\[64, 5\], adapter_config.json says \[64, 4\] \(rank 4\)"),
        ({f"{Q}.lora_A.weight": torch.ones(4)}, "", r"\[4\], not the factor of a linear module"),
        ({f"{Q}.lora_A.weight": torch.ones(4, 1, 1)}, "", "not the factor of a linear module"),
        ({f"{Q}.lora_B.weight": torch.full((64, 4), torch.nan)}, "", "NaN or infinite values, in .*lora_B"),
        ({f"{Q}.lora_B.weight": torch.full((64, 4), 60000.0)}, "", "beyond ±65504"),
        ({"base_model.model.a..b.lora_A.weight": torch.ones(1)}, "", "its tensors are named"),
        ({"base_model.model.a b.lora_A.weight": torch.ones(1)}, "", "its tensors are named"),
        ({"base_model.model.\n.lora_A.weight": torch.ones(1)}, "", "its tensors are named"),
        ({f"base_model.model.{'x' * 200}.lora_A.weight": torch.ones(1)}, "", "its tensors are named"),
        ({f"{Q}.lora_A.weight": torch.ones(4, 64, dtype=torch.int32)}, "", "dtype"),
    ],
)
def test_lora_tensors_that_are_not_the_configs(
    tensors: dict[str, torch.Tensor], removed: str, problem: str, tmp_path: Path
) -> None:
    files = read_adapter_directory(saved(lora(), tmp_path))
    with pytest.raises(AdapterInvalid, match=problem):
        read_adapter("a", rewritten(files, tensors, removed))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("lora_magnitude_vector", "DoRA is not served"),
        ("lora_embedding_A", "LoRA of an embedding"),
        ("lora_B.bias", "a bias is not served"),
    ],
)
def test_lora_tensors_that_are_not_served_are_named(name: str, problem: str, tmp_path: Path) -> None:
    files = read_adapter_directory(saved(lora(), tmp_path))
    with pytest.raises(AdapterUnsupported, match=rf"{problem}.*'{Q}\.{name}'"):
        read_adapter("a", rewritten(files, {f"{Q}.{name}": torch.ones(4)}))


def test_lora_of_an_embedding_made_by_peft_is_refused(tmp_path: Path) -> None:
    files = read_adapter_directory(saved(lora(target_modules=["wte"]), tmp_path, family="gpt2"))
    with pytest.raises(AdapterUnsupported, match="LoRA of an embedding"):
        read_adapter("a", files)


@pytest.mark.parametrize("shape", [(64,), (1, 1), (2, 32), (1, 64, 1)])
def test_an_ia3_scale_of_neither_side_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    config = peft.IA3Config(task_type="CAUSAL_LM", target_modules=["q_proj"], feedforward_modules=[])
    files = read_adapter_directory(saved(config, tmp_path))
    with pytest.raises(AdapterInvalid, match=r"neither \[1, in\] nor \[out, 1\]"):
        read_adapter("a", rewritten(files, {f"{Q}.ia3_l": torch.ones(shape)}))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"num_layers": 2}, r"\[5, 192\], adapter_config.json says \[5, 128\]"),
        ({"num_virtual_tokens": 4}, r"\[5, 192\], adapter_config.json says \[4, 192\]"),
        ({"token_dim": 64}, r"\[5, 192\], adapter_config.json says \[5, 384\]"),
    ],
)
def test_kv_rows_of_another_shape_than_the_configs(fields: dict[str, Any], problem: str, tmp_path: Path) -> None:
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    files = read_adapter_directory(saved(config, tmp_path))
    changed = dataclasses.replace(files, config=json.dumps(json.loads(files.config) | fields).encode())
    with pytest.raises(AdapterInvalid, match=problem):
        read_adapter("a", changed)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("prefix_task_cols", (3, 2, 2)), ("prefix_task_rows", (3, 1, 32)), ("prefix_task_rows", (64,))],
)
def test_multitask_factors_of_another_shape(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    config = peft.MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=2, num_tasks=3, prompt_tuning_init="RANDOM"
    )
    files = read_adapter_directory(saved(config, tmp_path))
    with pytest.raises(AdapterInvalid, match=f"'{name}' is "):
        read_adapter("a", rewritten(files, {name: torch.ones(shape)}))
    with pytest.raises(AdapterInvalid, match=f"lacks the tensor '{name}'"):
        read_adapter("a", rewritten(files, {}, name))
