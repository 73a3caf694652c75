"""Root mean square norms in one kernel each, where a model spells them out in eight. Knows no cache and no requests."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

_EPSILONS = ("variance_epsilon", "eps")
_PROBE_ROWS = 16


def fuse_norms(model: nn.Module) -> None:
    """Let each norm that torch's own `rms_norm` stands for be computed by it.

    A norm is taken for one by its name, and kept as it is unless both say the same of random rows, but for the rounding
    of the last place: a norm whose weight counts from one, say, does not.
    """
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            _fuse(module)


def _fuse(module: nn.Module) -> None:
    weight = getattr(module, "weight", None)
    epsilon = next((value for name in _EPSILONS if isinstance(value := getattr(module, name, None), float)), None)
    if not isinstance(weight, torch.Tensor) or weight.dim() != 1 or epsilon is None:
        return
    forward = _rms_norm(weight, epsilon)
    if _is_alike(module, forward, weight):
        module.forward = forward


def _rms_norm(weight: torch.Tensor, epsilon: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(hidden_states: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(hidden_states, weight.shape, weight, epsilon)

    return forward


def _is_alike(module: nn.Module, forward: Callable[[torch.Tensor], torch.Tensor], weight: torch.Tensor) -> bool:
    """Rows of several sizes, so that a wrong epsilon shows too."""
    generator = torch.Generator(weight.device).manual_seed(0)
    shape = (1, _PROBE_ROWS, weight.shape[0])
    rows = torch.randn(shape, generator=generator, device=weight.device, dtype=torch.float32)
    rows *= torch.logspace(-4, 2, _PROBE_ROWS, device=weight.device)[None, :, None]
    rows = rows.to(weight.dtype)
    tolerance = 2 * torch.finfo(weight.dtype).eps
    with torch.inference_mode():
        try:
            expected, made = module(rows), forward(rows)
        except (TypeError, ValueError, RuntimeError):  # it wants more than rows: a gate, say
            return False
        return isinstance(expected, torch.Tensor) and torch.allclose(
            made.float(), expected.float(), rtol=tolerance, atol=tolerance
        )
