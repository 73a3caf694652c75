"""What the native decoder needs of a transformers model, and which models have it. Knows no library and no cache."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    LlamaForCausalLM,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
)

from server.engine.errors import NativeUnavailable

_FAMILIES = (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
_STATIC_ROPES = {"default", "linear", "llama3", "yarn"}
"""Rotary embeddings whose angles depend on the position alone, not on the sequence's length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderShape:
    """The numbers of a llama-shaped model."""

    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    num_layers: int
    norm_eps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """One layer. Matrices are bfloat16 `[outputs, inputs]`, the rest float32; all contiguous.

    `qkv_bias` is that of queries, keys and values one after the other. `window` is how many keys a token sees.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    qkv_bias: torch.Tensor | None
    output: torch.Tensor
    gate: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor
    input_norm: torch.Tensor
    mlp_norm: torch.Tensor
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None
    window: int | None


@dataclass(frozen=True, slots=True)
class HeadWeights:
    """What comes after the layers: logits `[vocab_size, hidden_size]`, bfloat16, and the last norm, float32."""

    logits: torch.Tensor
    norm: torch.Tensor


def decoder_shape(model: PreTrainedModel) -> DecoderShape:
    """The model's numbers. Raises NativeUnavailable, with the reason, for a model that is not llama-shaped."""
    if not isinstance(model, _FAMILIES):
        raise NativeUnavailable(f"models of type {model.config.model_type} have no native decoder")
    config: Any = model.config
    shape = DecoderShape(
        hidden_size=config.hidden_size,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        vocab_size=config.vocab_size,
        num_layers=config.num_hidden_layers,
        norm_eps=config.rms_norm_eps,
    )
    for is_wrong, reason in (
        (model.dtype != torch.bfloat16 or model.device.type != "cpu", "it computes in bfloat16, on a CPU"),
        (config.hidden_act != "silu", f"the activation {config.hidden_act} is not silu"),
        (shape.head_dim % 16 or shape.head_dim > 512, f"the head size {shape.head_dim} is no multiple of 16"),
        (shape.intermediate_size % 16, f"the inner size {shape.intermediate_size} is no multiple of 16"),
        (_rope_type(config) not in _STATIC_ROPES, f"rotary embeddings of type {_rope_type(config)} change on the way"),
        (_has_other_biases(model), "it has biases beside those of queries, keys and values"),
    ):
        if is_wrong:
            raise NativeUnavailable(reason)
    return shape


def layer_weights(model: PreTrainedModel) -> Iterator[LayerWeights]:
    """The layers in order, of a model that `decoder_shape` took."""
    layers: Any = model.base_model.layers
    for layer in layers:
        attention, mlp = layer.self_attn, layer.mlp
        biases = [getattr(attention, name).bias for name in ("q_proj", "k_proj", "v_proj")]
        yield LayerWeights(
            query=_matrix(attention.q_proj),
            key=_matrix(attention.k_proj),
            value=_matrix(attention.v_proj),
            qkv_bias=None if biases[0] is None else torch.cat([bias.float() for bias in biases]).contiguous(),
            output=_matrix(attention.o_proj),
            gate=_matrix(mlp.gate_proj),
            up=_matrix(mlp.up_proj),
            down=_matrix(mlp.down_proj),
            input_norm=_vector(layer.input_layernorm),
            mlp_norm=_vector(layer.post_attention_layernorm),
            query_norm=_vector(attention.q_norm) if hasattr(attention, "q_norm") else None,
            key_norm=_vector(attention.k_norm) if hasattr(attention, "k_norm") else None,
            window=_window(model, attention),
        )


def head_weights(model: PreTrainedModel) -> HeadWeights:
    """Final norm and logits."""
    whole: Any = model
    return HeadWeights(_matrix(whole.lm_head), _vector(whole.model.norm))


def rotary_table(model: PreTrainedModel, num_positions: int) -> torch.Tensor:
    """Cosines and sines of every position, float32 `[num_positions, 2, head_dim]`, as the model itself makes them."""
    whole: Any = model
    positions = torch.arange(num_positions)[None]
    cos, sin = whole.model.rotary_emb(torch.zeros(1, 1, 1, dtype=torch.float32), positions)
    return torch.stack([cos[0], sin[0]], dim=1).float().contiguous()


def _rope_type(config: Any) -> str:
    parameters = getattr(config, "rope_parameters", None) or {}
    return str(parameters.get("rope_type", "default"))


def _has_other_biases(model: PreTrainedModel) -> bool:
    layers: Any = model.base_model.layers
    first = layers[0]
    others = (first.self_attn.o_proj, first.mlp.gate_proj, first.mlp.up_proj, first.mlp.down_proj)
    head: Any = model.get_output_embeddings()
    return any(linear.bias is not None for linear in (*others, head))


def _window(model: PreTrainedModel, attention: nn.Module) -> int | None:
    if hasattr(attention, "sliding_window"):
        window: int | None = attention.sliding_window  # type: ignore[assignment]  # nn.Module's attributes are Tensors
        return window
    return getattr(model.config, "sliding_window", None) if isinstance(model, MistralForCausalLM) else None


def _matrix(linear: nn.Module) -> torch.Tensor:
    weight: torch.Tensor = linear.weight  # type: ignore[assignment]
    return weight.detach().contiguous()


def _vector(norm: nn.Module) -> torch.Tensor:
    weight: torch.Tensor = norm.weight  # type: ignore[assignment]
    return weight.detach().float().contiguous()
