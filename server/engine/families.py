"""Plugs our attention into stock transformers models. Knows no batches and no cache.

Most families ask transformers' AttentionInterface for their attention by name. BLOOM does not: its attention layers get
a forward of ours. What a family does beyond that (gaps in the mask, extra bias) is caught by the start-up self-check.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any, Protocol
from uuid import uuid4

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.models.bloom.modeling_bloom import BloomAttention, BloomForCausalLM

from server.engine.errors import ModelUnsupported


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
        window: int | None = None,
        alibi_slopes: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """query `[H, T, Dk]`, key `[Hkv, T, Dk]`, value `[Hkv, T, Dv]`; returns `[T, H, Dv]`."""


def use_attention(model: PreTrainedModel, attend: Attend) -> None:
    """Let every attention layer of `model` call `attend`. The model belongs to the engine from now on.

    Raises ModelUnsupported when the model's family takes no attention from outside.
    """
    name = f"hotprompt_{uuid4().hex}"
    if isinstance(model, BloomForCausalLM):
        _use_in_bloom(model, attend)
        model.config._attn_implementation = name  # unknown to the mask functions: no T × T mask is built
        return
    AttentionInterface.register(name, _interface_function(attend))
    try:
        model.set_attn_implementation(name)
    except (ValueError, KeyError) as error:
        raise ModelUnsupported(f"models of type {model.config.model_type} take no attention from outside") from error


def _interface_function(attend: Attend) -> Callable[..., tuple[torch.Tensor, None]]:
    """The signature that AttentionInterface asks for, over `attend`."""

    def attention(
        module: nn.Module,
        query: torch.Tensor,  # [1, H, T, D]
        key: torch.Tensor,
        value: torch.Tensor,
        _attention_mask: torch.Tensor | None,
        *,
        scaling: float | None = None,
        sliding_window: int | None = None,
        **unused: Any,
    ) -> tuple[torch.Tensor, None]:
        for extra in ("softcap", "sinks", "s_aux", "position_bias"):
            if unused.get(extra) is not None:
                raise ModelUnsupported(f"{type(module).__name__} wants '{extra}' in its attention, which is not served")
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        output = attend(int(module.layer_idx), query[0], key[0], value[0], scale=scale, window=sliding_window)  # type: ignore[arg-type]
        return output[None], None

    return attention


def _use_in_bloom(model: BloomForCausalLM, attend: Attend) -> None:
    def forward(
        self: BloomAttention, hidden_states: torch.Tensor, residual: torch.Tensor, **_: Any
    ) -> tuple[torch.Tensor, None]:
        # The alibi that the model hands over is that of the packed row as one sequence: not used.
        query, key, value = self._reshape(self.query_key_value(hidden_states))  # [1, H, T, D] each
        slopes = alibi_slopes(self.num_heads).to(hidden_states.device)
        assert self.layer_idx is not None, "every layer of a whole model has its index"
        output = attend(self.layer_idx, query[0], key[0], value[0], scale=self.inv_norm_factor, alibi_slopes=slopes)
        return self.dense(output.flatten(1)[None]) + residual, None

    for module in model.modules():
        if isinstance(module, BloomAttention):
            module.forward = MethodType(forward, module)  # type: ignore[method-assign]


def alibi_slopes(num_heads: int) -> torch.Tensor:
    """ALiBi's slopes `[num_heads]`, float32.

    Powers of 2^(-8/n) for the nearest power of two n below, then every other one of the next n's (section 3 of
    https://arxiv.org/abs/2108.12409, and its reference code).
    """
    nearest = 1 << (num_heads.bit_length() - 1)
    base = 2.0 ** (-8.0 / nearest)
    slopes = [base ** (i + 1) for i in range(nearest)]
    extra_base = 2.0 ** (-4.0 / nearest)
    slopes += [extra_base ** (2 * i + 1) for i in range(num_heads - nearest)]
    return torch.tensor(slopes, dtype=torch.float32)
