"""Small replacements for families whose attention layers do not ask AttentionInterface. Knows no batches and no cache.

Each keeps the layer's own projections and positions, and hands queries, keys and values to `attend` instead.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.bloom.modeling_bloom import BloomAttention
from transformers.models.codegen.modeling_codegen import CodeGenAttention
from transformers.models.falcon.modeling_falcon import FalconAttention
from transformers.models.falcon.modeling_falcon import apply_rotary_pos_emb as rotate_falcon
from transformers.models.gpt_neo.modeling_gpt_neo import GPTNeoSelfAttention
from transformers.models.gptj.modeling_gptj import GPTJAttention
from transformers.models.mpt.modeling_mpt import MptAttention

from server.engine.errors import ModelUnsupported
from server.engine.placing import placed
from server.engine.step_layout import SEES_ALL, Reach


class Attend(Protocol):
    """Attention of one layer over everything it needs to know; see `PagedAttention.attend`."""

    def __call__(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        scale: float,
        reach: Reach = SEES_ALL,
        softcap: float | None = None,
        sinks: torch.Tensor | None = None,
        alibi_slopes: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """query `[H, T, Dk]`, key `[Hkv, T, Dk]`, value `[Hkv, T, Dv]`; returns `[T, H, Dv]`."""


def takes_positions(model: PreTrainedModel) -> bool:
    """Whether the model is told its tokens' positions; families with ALiBi are not."""
    return "position_ids" in inspect.signature(model.forward).parameters


def has_own_attention(model: PreTrainedModel) -> bool:
    """Whether the model's family is one of those that `replace_attention` knows."""
    return any(type(module) in _REPLACEMENTS for module in model.modules())


def replace_attention(model: PreTrainedModel, attend: Attend) -> None:
    """Let every attention layer of a model that `has_own_attention` call `attend`. Raises ModelUnsupported."""
    for module in model.modules():
        replacement = _REPLACEMENTS.get(type(module))
        if replacement is not None:
            method, function = replacement
            setattr(module, method, partial(function, module, attend))


def _bloom(module: Any, attend: Attend, hidden_states: torch.Tensor, residual: torch.Tensor, **_: Any) -> Any:
    # The alibi that the model hands over is that of the packed row as one sequence: not used.
    query, key, value = module._reshape(module.query_key_value(hidden_states))  # [1, H, T, D] each
    slopes = placed(alibi_slopes(module.num_heads), torch.float32, hidden_states.device)
    output = attend(module.layer_idx, query[0], key[0], value[0], scale=module.inv_norm_factor, alibi_slopes=slopes)
    return module.dense(output.flatten(1)[None]) + residual, None


def _mpt(module: Any, attend: Attend, hidden_states: torch.Tensor, position_bias: torch.Tensor, **_: Any) -> Any:
    mixed = module.Wqkv(hidden_states)[0]  # [T, 3 * H * D]
    if module.clip_qkv:
        mixed = mixed.clamp(min=-module.clip_qkv, max=module.clip_qkv)
    query, key, value = mixed.view(mixed.shape[0], 3, module.n_heads, -1).permute(1, 2, 0, 3)  # [H, T, D] each
    slopes = position_bias[:, 0, -1] - position_bias[:, 0, -2]  # [H], as neighbouring keys' biases differ by them
    output = attend(module.layer_idx, query, key, value, scale=module.softmax_scale, alibi_slopes=slopes)
    return module.out_proj(output.flatten(1)[None]), None


def _falcon(
    module: Any,
    attend: Attend,
    hidden_states: torch.Tensor,
    alibi: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
    **_: Any,
) -> Any:
    if alibi is not None or position_embeddings is None:
        raise ModelUnsupported("models of type falcon round their ALiBi to bfloat16 by its length: not served")
    del attention_mask  # that of the packed row as one sequence
    query, key, value = (x.transpose(1, 2) for x in module._split_heads(module.query_key_value(hidden_states)))
    query, key = rotate_falcon(query, key, *position_embeddings)
    copies = key.shape[1] // module.num_kv_heads  # falcon repeats each key for its group of heads
    output = attend(module.layer_idx, query[0], key[0, ::copies], value[0, ::copies], scale=module.inv_norm_factor)
    return module.dense(output.flatten(1)[None]), None


def _scores_of_gptj(
    module: Any, attend: Attend, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, _: Any = None
) -> Any:
    """GPT-J and CodeGen: `[1, H, T, D]` each, rotated in float32."""
    query, key = query.to(value.dtype), key.to(value.dtype)
    output = attend(module.layer_idx, query[0], key[0], value[0], scale=1 / module.scale_attn)
    return output.transpose(0, 1)[None], None


def _scores_of_gpt_neo(
    module: Any, attend: Attend, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, _: Any = None
) -> Any:
    """GPT-Neo does not scale, and its local layers see the last keys only."""
    window = module.config.window_size
    reach = Reach(window=window) if module.attention_type == "local" else SEES_ALL
    output = attend(module.layer_id, query[0], key[0], value[0], scale=1.0, reach=reach)
    return output.transpose(0, 1)[None], None


_REPLACEMENTS: dict[type[nn.Module], tuple[str, Callable[..., Any]]] = {
    BloomAttention: ("forward", _bloom),
    MptAttention: ("forward", _mpt),
    FalconAttention: ("forward", _falcon),
    GPTJAttention: ("_attn", _scores_of_gptj),
    CodeGenAttention: ("_attn", _scores_of_gptj),
    GPTNeoSelfAttention: ("_attn", _scores_of_gpt_neo),
}
"""By class of attention layer: the method that is replaced, and what it becomes."""


def alibi_slopes(num_heads: int) -> torch.Tensor:
    """ALiBi's slopes `[num_heads]`, float32, as BLOOM has them.

    Powers of 2^(-8/n) for the nearest power of two n below, then every other one of the next n's (section 3 of
    https://arxiv.org/abs/2108.12409, and its reference code).
    """
    nearest = 1 << (num_heads.bit_length() - 1)
    base = 2.0 ** (-8.0 / nearest)
    slopes = [base ** (i + 1) for i in range(nearest)]
    extra_base = 2.0 ** (-4.0 / nearest)
    slopes += [extra_base ** (2 * i + 1) for i in range(num_heads - nearest)]
    return torch.tensor(slopes, dtype=torch.float32)
