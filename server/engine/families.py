"""Plugs our attention into stock transformers models. Knows no batches and no cache.

Most families ask transformers' AttentionInterface for their attention by name; `own_attention` knows some others. What
a family does beyond that is caught by the start-up self-check.
"""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from server.engine.errors import ModelUnsupported
from server.engine.own_attention import Attend, has_own_attention, replace_attention, takes_positions
from server.engine.reach_probe import probe_reaches, set_attention
from server.engine.step_layout import Reach


def find_reaches(model: PreTrainedModel) -> dict[int, Reach]:
    """How far back each attention layer sees, where the model's masks say so; `own_attention`'s layers know it.

    Leaves the model to `use_attention`. Raises ModelUnsupported as `probe_reaches`.
    """
    return {} if has_own_attention(model) else probe_reaches(model)


def use_attention(model: PreTrainedModel, attend: Attend, reaches: dict[int, Reach]) -> None:
    """Let every attention layer of `model` call `attend`. The model belongs to the engine from now on.

    `reaches` is what `find_reaches` found. Raises ModelUnsupported when the model's family takes no attention from
    outside, or wants more of it than we know.
    """
    name = f"hotprompt_{uuid4().hex}"  # unknown to the mask functions: no T × T mask is built
    if has_own_attention(model):
        replace_attention(model, attend)
        if not takes_positions(model):
            AttentionMaskInterface.register(name, _no_mask)  # MPT converts its mask, whatever it is
        model.config._attn_implementation = name
        return
    AttentionInterface.register(name, _interface_function(attend, reaches))
    set_attention(model, name)


def _no_mask(*, device: torch.device, **_: Any) -> torch.Tensor:
    return torch.zeros(1, device=device)


def _interface_function(attend: Attend, reaches: dict[int, Reach]) -> Callable[..., tuple[torch.Tensor, None]]:
    """The signature that AttentionInterface asks for, over `attend`."""

    def attention(
        module: nn.Module,
        query: torch.Tensor,  # [1, H, T, D]
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        scaling: float | None = None,
        softcap: float | None = None,
        sinks: torch.Tensor | None = None,
        s_aux: torch.Tensor | None = None,
        **others: Any,
    ) -> tuple[torch.Tensor, None]:
        del attention_mask  # `reaches` says what the model's own masks say
        unknown = sorted(name for name, given in others.items() if _changes_scores(name, given))
        if unknown:
            raise ModelUnsupported(f"{type(module).__name__} wants {', '.join(unknown)} in its attention: not served")
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        output = attend(
            layer,
            query[0],
            key[0],
            value[0],
            scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
            reach=reaches[layer],
            softcap=softcap,
            sinks=s_aux if sinks is None else sinks,
        )
        return output[None], None

    return attention


def _changes_scores(name: str, given: object) -> bool:
    """Whether an argument that we do not know may be part of the attention: flags and sizes are not, numbers may be."""
    return isinstance(given, torch.Tensor | float) and name not in ("dropout", "position_ids")
