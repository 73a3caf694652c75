"""Random LoRA adapters as what they inject, for engines in this process. Knows no files and no PEFT."""

from collections.abc import Mapping

import torch

from adapters.fitting import LinearShape
from adapters.injections import LowRank, ModuleDelta, WeightDelta

_SHARE = 0.01
"""Of an output, about, that an adapter adds: the answers stay those of a model."""


def random_lora(shapes: Mapping[str, LinearShape], *, seed: int, rank: int) -> WeightDelta:
    """One that changes every module."""
    generator = torch.Generator().manual_seed(seed)
    changes: dict[str, ModuleDelta] = {}
    for path, shape in shapes.items():
        down = torch.randn(rank, shape.num_inputs, generator=generator) / shape.num_inputs**0.5
        up = torch.randn(shape.num_outputs, rank, generator=generator) * (_SHARE / rank**0.5)
        changes[path] = LowRank(down, up)
    return WeightDelta(f"random-{seed}-{rank}", changes)
