"""Attention by a kernel that reads keys and values where they lie, page by page. Knows no models and no device.

Layers that ask for more than the kernel computes are left to `PagedAttention`, which gathers keys and values first.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch

from server.engine.attention import LayerNeeds, PagedAttention
from server.engine.batch import Batch
from server.engine.cuda.pages import Pages
from server.engine.kv_cache import KVCache
from server.engine.step_layout import SEES_ALL, Reach

_LARGEST_HEAD = 256
_HEAD_MULTIPLE = 8


class VarlenKernel(Protocol):
    """torch.nn.attention.varlen.varlen_attn, as far as it is used here."""

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cu_seq_q: torch.Tensor,
        cu_seq_k: torch.Tensor,
        max_q: int,
        max_k: int,
        *,
        scale: float,
        window_size: tuple[int, int],
        enable_gqa: bool,
        seqused_k: torch.Tensor,
        block_table: torch.Tensor,
        num_splits: int,
    ) -> torch.Tensor:
        """query `[T, H, D]`, key and value `[pages, page_size, Hkv, D]`; returns `[T, H, D]`.

        `window_size` is how many keys before and after its own a query sees, -1 for all; the last query of a sequence
        stands at the last of its `seqused_k` keys.
        """


def served_layers(layers: Mapping[int, LayerNeeds]) -> frozenset[int]:
    """The layers that the kernel computes."""
    return frozenset(index for index, needs in layers.items() if _is_served(needs))


def _is_served(needs: LayerNeeds) -> bool:
    """FlashAttention 2, as torch has it: one size for keys and values, no chunks, nothing that weighs keys."""
    size = needs.shape.key_dim
    is_fit = size == needs.shape.value_dim and size <= _LARGEST_HEAD and size % _HEAD_MULTIPLE == 0
    return is_fit and needs.reach.chunk is None and not needs.weighing


class VarlenAttention:
    """Attends one layer at a time for a step; there is one step at a time."""

    def __init__(self, cache: KVCache, kernel: VarlenKernel, layers: frozenset[int]) -> None:
        """`layers` are those that the kernel computes."""
        self._cache = cache
        self._kernel = kernel
        self._gathering = PagedAttention(cache)
        self._paged = {  # keys and values [num_blocks, block_size, Hkv, D]
            layer: (
                cache.keys[layer].unflatten(0, (-1, cache.block_size)),
                cache.values[layer].unflatten(0, (-1, cache.block_size)),
            )
            for layer in layers
        }
        self._pages: Pages | None = None

    @contextmanager
    def step(self, batch: Batch) -> Iterator[None]:
        """Everything attended inside belongs to this batch."""
        pages = Pages.of(batch, block_size=self._cache.block_size, device=self._cache.device)
        with self._gathering.step(batch), self.over(pages):
            yield

    @contextmanager
    def over(self, pages: Pages) -> Iterator[None]:
        """Everything attended inside belongs to these pages, by layers that the kernel computes."""
        self._pages = pages
        try:
            yield
        finally:
            self._pages = None

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        scale: float,
        reach: Reach = SEES_ALL,
        softcap: float | None = None,
        sinks: torch.Tensor | None = None,
        alibi_slopes: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See `PagedAttention.attend`."""
        if layer not in self._paged:
            return self._gathering.attend(
                layer,
                query,
                key,
                value,
                scale=scale,
                reach=reach,
                softcap=softcap,
                sinks=sinks,
                alibi_slopes=alibi_slopes,
            )
        pages = self._pages
        assert pages is not None, "attention outside a step"
        self._cache.keys[layer].index_copy_(0, pages.new_slots, key.transpose(0, 1))
        self._cache.values[layer].index_copy_(0, pages.new_slots, value.transpose(0, 1))
        keys, values = self._paged[layer]
        return self._kernel(
            query.transpose(0, 1).contiguous(),
            keys,
            values,
            pages.query_offsets,
            pages.key_offsets,
            pages.most_queries,
            pages.most_keys,
            scale=scale,
            window_size=_window_size(reach, pages),
            enable_gqa=query.shape[0] != key.shape[0],
            seqused_k=pages.num_keys,
            block_table=pages.tables,
            num_splits=1,  # a sequence's sums run in the same order whatever is computed beside it
        )


def _window_size(reach: Reach, pages: Pages) -> tuple[int, int]:
    """Keys before and after its own that a query sees."""
    if reach.window is not None:
        return reach.window - 1, 0
    # A single query stands at the end, where nothing is after it. FlashAttention 2 computes the heads of a KV group
    # together, and reads their keys once, only where it is not told to look out for later ones.
    return (-1, -1) if pages.most_queries == 1 else (-1, 0)
