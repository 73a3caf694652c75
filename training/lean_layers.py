"""Norms and gates that keep less for the backward pass, for models whose weights are frozen. Knows no batches.

The stock modules of the llama family keep several float32 copies of their input, where the input itself is enough.
"""

from functools import partial
from typing import Any

import torch
from torch.nn.functional import silu
from transformers.activations import SiLUActivation
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralMLP, MistralRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP, Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3MLP, Qwen3RMSNorm

_NORMS = (LlamaRMSNorm, MistralRMSNorm, Qwen2RMSNorm, Qwen3RMSNorm)
_GATED = (LlamaMLP, MistralMLP, Qwen2MLP, Qwen3MLP)


def lighten(model: torch.nn.Module) -> None:
    """Let every frozen RMS norm and every SwiGLU block of the llama family compute the same with less memory."""
    for module in model.modules():
        if isinstance(module, _NORMS) and not module.weight.requires_grad:
            setattr(module, "forward", partial(_norm, module))  # noqa: B010 (a method, to mypy)
        elif isinstance(module, _GATED) and isinstance(module.act_fn, SiLUActivation | torch.nn.SiLU):
            setattr(module, "forward", partial(_gated, module))  # noqa: B010


def _norm(module: Any, hidden_states: torch.Tensor) -> Any:
    return _RMSNorm.apply(hidden_states, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]


def _gated(module: Any, hidden_states: torch.Tensor) -> Any:
    gate, up = module.gate_proj(hidden_states), module.up_proj(hidden_states)
    return module.down_proj(_SwiGLU.apply(gate, up))  # type: ignore[no-untyped-call]


class _RMSNorm(torch.autograd.Function):
    """`weight * (x / rms(x))`, the norm in float32 (transformers' LlamaRMSNorm); keeps x."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        wide = x.float()
        inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
        ctx.save_for_backward(x, inverse, weight)
        return weight * (wide * inverse).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, inverse, weight = ctx.saved_tensors
        above = (slopes[0] * weight).float()
        unit = x.float().mul_(inverse)
        along = (above * unit).mean(-1, keepdim=True)
        return above.sub_(unit.mul_(along)).mul_(inverse).to(x.dtype), None, None


class _SwiGLU(torch.autograd.Function):
    """`silu(gate) * up`; keeps the two, and not silu(gate)."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        above = slopes[0]
        return torch.ops.aten.silu_backward(above * up, gate), silu(gate).mul_(above)
