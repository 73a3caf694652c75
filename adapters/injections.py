"""What an adapter puts into a model's pass: rows of embeddings, rows of KV, or deltas of weights. Knows no files."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import torch


@dataclass(frozen=True, slots=True)
class SoftPrompt:
    """Virtual tokens that stand before everything else of a prompt, BOS included.

    `embeddings` is `[num_virtual_tokens, hidden_size]`, float32, on the CPU, and is never written to.
    """

    digest: str
    embeddings: torch.Tensor

    @property
    def num_virtual_tokens(self) -> int:
        return self.embeddings.shape[0]

    @property
    def num_bytes(self) -> int:
        return _num_bytes(self.embeddings)


@dataclass(frozen=True, slots=True)
class KVRows:
    """Keys and values of virtual tokens that stand before everything else, as every layer's cache holds them.

    Both are `[num_layers, num_virtual_tokens, num_kv_heads, head_dim]`, float32, on the CPU, and are never written to.
    Keys are taken as they are: whatever rotation they need they already have.
    """

    digest: str
    keys: torch.Tensor
    values: torch.Tensor

    @property
    def num_virtual_tokens(self) -> int:
        return self.keys.shape[1]

    @property
    def num_bytes(self) -> int:
        return _num_bytes(self.keys, self.values)


@dataclass(frozen=True, slots=True)
class LowRank:
    """Adds `up @ (down @ x)` to a linear module's output; `down` is `[rank, in]`, `up` `[out, rank]`, scaling included.

    `out` and `in` are what the module maps to and from, also where its weight is stored transposed (GPT-2's Conv1D).
    """

    down: torch.Tensor
    up: torch.Tensor

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        return self.down, self.up


@dataclass(frozen=True, slots=True)
class InputScale:
    """Multiplies what goes into a linear module, value by value; `factors` is `[in]`."""

    factors: torch.Tensor

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        return (self.factors,)


@dataclass(frozen=True, slots=True)
class OutputScale:
    """Multiplies what comes out of a linear module, its bias included, value by value; `factors` is `[out]`."""

    factors: torch.Tensor

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        return (self.factors,)


ModuleDelta = LowRank | InputScale | OutputScale


@dataclass(frozen=True, slots=True, weakref_slot=True)
class WeightDelta:
    """Changes to what linear modules compute, for the rows of the sequences that use it alone.

    `modules` goes by the module's path in the base model (`model.layers.0.self_attn.q_proj`). All tensors are float32,
    on the CPU, and are never written to.
    """

    digest: str
    modules: Mapping[str, ModuleDelta]

    @property
    def num_virtual_tokens(self) -> int:
        return 0

    @property
    def num_bytes(self) -> int:
        return _num_bytes(*chain.from_iterable(delta.tensors for delta in self.modules.values()))


Injection = SoftPrompt | KVRows | WeightDelta


def _num_bytes(*tensors: torch.Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
