"""Random adapters of every kind on tiny models, made by PEFT: PEFT's own model, and the same as an injection."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from peft import (
    IA3Config,
    LoraConfig,
    PeftConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    TaskType,
    get_peft_model,
)
from peft.tuners.ia3.layer import IA3Layer
from peft.tuners.lora.layer import LoraLayer

from adapters.injections import (
    Injection,
    InputScale,
    KVRows,
    LowRank,
    ModuleDelta,
    OutputScale,
    SoftPrompt,
    WeightDelta,
)
from tests.tiny import Family, tiny_model

_ATTENTION = {
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "qwen2": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "gpt2": ("c_attn", "attn.c_proj"),
    "bloom": ("query_key_value", "self_attention.dense"),
}
_MLP_OUTPUT = {"llama": "down_proj", "qwen2": "down_proj", "gpt2": "mlp.c_proj", "bloom": "dense_4h_to_h"}
_MLP_INPUT = {"llama": "up_proj", "qwen2": "up_proj", "gpt2": "c_fc", "bloom": "dense_h_to_4h"}


@dataclass(frozen=True)
class PeftAdapter:
    """An adapter twice over; `model` is the oracle, and has a base model of its own."""

    kind: str
    model: Any
    injection: Injection | None


def every_kind(family: Family) -> list[PeftAdapter]:
    """The base without an adapter, and two adapters of each kind."""
    made = [PeftAdapter("base", tiny_model(family), None)]
    for number, (kind, configure) in product((0, 1), _KINDS.items()):
        base = tiny_model(family)
        torch.manual_seed(100 + number)
        model = get_peft_model(base, configure(family, number))
        model.train(mode=False)
        _randomize(model, kind)
        made.append(PeftAdapter(kind, model, injection_of(model, digest=f"{kind}-{number}")))
    return made


def adapter_of(family: Family, kind: str) -> PeftAdapter:
    return next(adapter for adapter in every_kind(family) if adapter.kind == kind)


def injection_of(model: Any, *, digest: str) -> Injection:
    """What PEFT's own modules hold."""
    if model.active_peft_config.peft_type == "PREFIX_TUNING":
        config = model.base_model.config
        weight = next(iter(model.prompt_encoder.values())).embedding.weight.detach()
        rows = weight.view(weight.shape[0], config.num_hidden_layers, 2, -1, config.hidden_size // _num_heads(config))
        by_layer = rows.permute(2, 1, 0, 3, 4).contiguous()  # keys and values, layer, token, head, value
        return KVRows(digest, by_layer[0], by_layer[1])
    if model.active_peft_config.is_prompt_learning:
        return SoftPrompt(digest, model.get_prompt(1)[0].detach())
    modules = model.base_model.model.named_modules()
    deltas = {path: delta for path, module in modules if (delta := _delta_of(module)) is not None}
    return WeightDelta(digest, deltas)


def _delta_of(module: torch.nn.Module) -> ModuleDelta | None:
    layer: Any = module
    if isinstance(module, LoraLayer):
        up = layer.lora_B["default"].weight.detach() * layer.scaling["default"]
        return LowRank(layer.lora_A["default"].weight.detach(), up)
    if isinstance(module, IA3Layer):
        factors = layer.ia3_l["default"].detach().flatten()
        return InputScale(factors) if layer.is_feedforward else OutputScale(factors)
    return None


def _randomize(model: Any, kind: str) -> None:
    """PEFT begins with adapters that change nothing; these change answers, and keep logits small."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, mean=1.0 if kind == "ia3" else 0.0, std=_SPREAD.get(kind, 0.5))


def _num_heads(config: Any) -> int:
    return int(config.num_attention_heads)


def _prompt_tuning(_: Family, number: int) -> PeftConfig:
    return PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=5 + 12 * (number))


def _p_tuning(_: Family, number: int) -> PeftConfig:
    return PromptEncoderConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=16 + number, encoder_hidden_size=32)


def _prefix_tuning(_: Family, number: int) -> PeftConfig:
    return PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=20 - 13 * (number))


def _lora(family: Family, number: int) -> PeftConfig:
    targets = [*_ATTENTION[family], _MLP_INPUT[family], _MLP_OUTPUT[family]]
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=4 + number,
        lora_alpha=8,
        target_modules=targets,
        fan_in_fan_out=family == "gpt2",
    )


def _rslora(family: Family, number: int) -> PeftConfig:
    """Rank-stabilised, with ranks and alphas of its own for some modules."""
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=3,
        lora_alpha=6,
        use_rslora=True,
        target_modules=[_ATTENTION[family][0], _MLP_OUTPUT[family]],
        rank_pattern={_MLP_OUTPUT[family]: 7 + number},
        alpha_pattern={_MLP_OUTPUT[family]: 5},
        fan_in_fan_out=family == "gpt2",
    )


def _ia3(family: Family, _: int) -> PeftConfig:
    return IA3Config(
        task_type=TaskType.CAUSAL_LM,
        target_modules=[*_ATTENTION[family], _MLP_OUTPUT[family]],
        feedforward_modules=[_MLP_OUTPUT[family]],
        fan_in_fan_out=family == "gpt2",
    )


_SPREAD = {"lora": 0.1, "rslora": 0.1, "ia3": 0.3}
_KINDS: dict[str, Callable[[Family, int], PeftConfig]] = {
    "prompt tuning": _prompt_tuning,
    "p-tuning": _p_tuning,
    "prefix tuning": _prefix_tuning,
    "lora": _lora,
    "rslora": _rslora,
    "ia3": _ia3,
}
