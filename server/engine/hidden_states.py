"""Reads the last hidden states of a transformers model while it runs. Knows no batches and no cache."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel


@contextmanager
def last_hidden_states(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """A list that each pass of `model` inside adds its `last_hidden_state` `[1, T, hidden_size]` to, as its last item.

    It is taken where the model under the language modelling head gives it, before rows are chosen for logits.
    """
    seen: list[torch.Tensor] = []

    def note(_: nn.Module, __: Any, output: Any) -> None:
        states = getattr(output, "last_hidden_state", None)
        if states is not None:
            seen.append(states)

    # Families call what is under their head by many names; the outermost model ends last.
    inner = [module for module in model.modules() if isinstance(module, PreTrainedModel) and module is not model]
    hooks = [module.register_forward_hook(note) for module in inner]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
