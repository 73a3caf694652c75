"""Finds out how far back each attention layer of a stock model sees. Knows no batches and no cache.

A stock model says so by the mask that it asks transformers for; what it passes to attention beside the mask is a hint
that stock attention ignores. One short forward, in which we hand out the masks, finds every layer's, whatever its size.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from server.engine.errors import ModelUnsupported
from server.engine.step_layout import SEES_ALL, Reach

MaskFunction = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""transformers' definition of a mask: whether, by (batch, head, query, key) indices, the query sees the key."""

_NUM_TOKENS = 4


class _Probe:
    """Hands out masks, and notes which of them each layer attends with."""

    def __init__(self, model_type: str) -> None:
        self._model_type = model_type
        self._masks: list[tuple[torch.Tensor, Reach]] = []
        self.reaches: dict[int, Reach] = {}

    def mask(
        self,
        *,
        batch_size: int,
        q_length: int,
        kv_length: int,
        mask_function: MaskFunction,
        device: torch.device,
        local_size: int | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """What AttentionMaskInterface asks for; known again by its identity, its content says nothing."""
        mask = torch.ones(batch_size, 1, q_length, kv_length, dtype=torch.bool, device=device)
        self._masks.append((mask, self._reach(mask_function, local_size, device)))
        return mask

    def attention(
        self,
        module: nn.Module,
        query: torch.Tensor,  # [1, H, T, D]
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        del key  # nothing is computed
        layer = getattr(module, "layer_idx", None)
        if layer is None:
            raise self._unsupported("have attention outside their numbered layers")
        if layer in self.reaches:
            raise self._unsupported(f"attend more than once in layer {layer}")
        self.reaches[int(layer)] = self._reach_of(attention_mask, module)
        return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3]), None

    def _reach_of(self, attention_mask: torch.Tensor | None, module: nn.Module) -> Reach:
        if attention_mask is None:
            if getattr(module, "is_causal", True):
                return SEES_ALL
            raise self._unsupported("see later tokens too")
        for mask, reach in self._masks:
            if mask is attention_mask:
                return reach
        raise self._unsupported(f"mask their attention by a rule of their own ({type(module).__name__})")

    def _reach(self, mask_function: MaskFunction, local_size: int | None, device: torch.device) -> Reach:
        """The reach that `mask_function` agrees with at every edge that it may have."""
        size = local_size or 64
        edges = {0, 1, size - 1, size, size + 1, 2 * size - 1, 2 * size, 3 * size + 1}
        queries = torch.tensor(sorted(edges), device=device)[:, None]
        keys = torch.arange(3 * size + 4, device=device)[None, :]
        zero = torch.zeros(1, 1, dtype=torch.long, device=device)
        seen = mask_function(zero, zero, queries, keys).expand(len(edges), keys.shape[1])
        candidates = [SEES_ALL] if local_size is None else [Reach(window=local_size), Reach(chunk=local_size)]
        for reach in candidates:
            if torch.equal(seen, reach.sees(keys, queries)):
                return reach
        raise self._unsupported("see other keys than all earlier ones, or the last ones")

    def _unsupported(self, what: str) -> ModelUnsupported:
        return ModelUnsupported(f"models of type {self._model_type} {what}, which is not served")


def probe_reaches(model: PreTrainedModel) -> dict[int, Reach]:
    """How far back each attention layer sees, by layer index. Leaves the model with attention that computes nothing.

    Raises ModelUnsupported where a layer sees other keys, or where the model calls no attention from outside.
    """
    probe = _Probe(model.config.model_type)
    with _attention_of(model, probe), torch.inference_mode():
        tokens = torch.arange(_NUM_TOKENS, device=model.device)[None]
        try:
            model(input_ids=tokens, position_ids=tokens, use_cache=False)
        except ModelUnsupported:
            raise
        except Exception as error:
            raise ModelUnsupported(
                f"models of type {model.config.model_type} cannot be computed with attention from outside: {error}"
            ) from error
    if not probe.reaches:
        raise ModelUnsupported(f"models of type {model.config.model_type} take no attention from outside")
    return probe.reaches


@contextmanager
def _attention_of(model: PreTrainedModel, probe: _Probe) -> Iterator[None]:
    name = f"hotprompt_probe_{uuid4().hex}"
    AttentionInterface.register(name, probe.attention)
    AttentionMaskInterface.register(name, probe.mask)
    try:
        set_attention(model, name)
        yield
    finally:
        AttentionInterface._global_mapping.pop(name)
        AttentionMaskInterface._global_mapping.pop(name)


def set_attention(model: PreTrainedModel, name: str) -> None:
    """Choose a registered attention. Raises ModelUnsupported when the model's family takes none from outside."""
    try:
        model.set_attn_implementation(name)
    except (ValueError, KeyError) as error:
        raise ModelUnsupported(f"models of type {model.config.model_type} take no attention from outside") from error
