"""Norms that torch's own kernel takes over: only those that say the same."""

import torch
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from server.engine.cuda.norms import fuse_norms


class _ScaledRMSNorm(LlamaRMSNorm):
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return 1.01 * super().forward(hidden_states)


class _GatedRMSNorm(LlamaRMSNorm):
    def forward(self, hidden_states: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward(hidden_states) * gate


def _filled(norm: nn.Module, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    nn.init.normal_(norm.weight)  # type: ignore[arg-type]
    return norm.to(dtype)


def test_a_norm_that_says_the_same_is_taken_over() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model = nn.Sequential(_filled(LlamaRMSNorm(64, eps=1e-5), dtype), nn.Linear(64, 64))
        rows = torch.randn(1, 7, 64).to(dtype)
        expected = model[0](rows)
        fuse_norms(model)
        assert "forward" in vars(model[0])
        assert torch.allclose(model[0](rows).float(), expected.float(), atol=2 * torch.finfo(dtype).eps, rtol=0.02)


def test_a_norm_that_says_something_else_stays() -> None:
    """One whose weight counts from one, one that scales, one that wants a gate, and one that is no RMS norm."""
    norms = [GemmaRMSNorm(64, eps=1e-6), _ScaledRMSNorm(64), _GatedRMSNorm(64), nn.LayerNorm(64)]
    for norm in norms:
        model = nn.Sequential(_filled(norm, torch.float32))
        fuse_norms(model)
        assert "forward" not in vars(model[0])
