"""Layers that keep their input alone for the backward pass, and are computed again there. Knows no packs, no loss."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def recomputed(
    model: torch.nn.Module, again: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Iterator[None]:
    """Within this, layers of a model in training mode are checkpointed (Chen et al. 2016, arXiv:1604.06174).

    The backward pass comes later, when what holds during this forward may hold no more: `again` makes the context, one
    for each layer, in which it is computed a second time.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    compute = partial(checkpoint, use_reentrant=False, context_fn=lambda: (nullcontext(), again()))
    for layer in layers:
        layer.gradient_checkpointing = True
        setattr(layer, "_gradient_checkpointing_func", compute)  # noqa: B010 (a module or a tensor, to mypy)
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = False
