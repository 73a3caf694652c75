"""Attention over the paged cache, for all sequences of a step at once. Knows no models: `families` plugs it into them.

The step's tokens lie packed in one row. Sequences that compute one token share one padded call; each longer chunk has a
call of its own. Both attend to keys and values gathered by slot, on any device: by scaled_dot_product_attention, or by
plain products where scores are capped or have sinks, which it does not know.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention

from adapters.fitting import LayerShape
from server.engine.batch import Batch
from server.engine.kv_cache import KVCache
from server.engine.step_layout import SEES_ALL, Reach, StepLayout


@dataclass(frozen=True, slots=True)
class LayerNeeds:
    """What a layer asks of attention: what it stores, how far back it sees, what weighs its keys beside the scale."""

    shape: LayerShape
    reach: Reach
    weighing: frozenset[str]
    """Of softcap, sinks and alibi_slopes, those that the layer hands over."""


@dataclass(frozen=True, slots=True)
class _Scoring:
    """How a layer weighs keys, beyond the mask. `sinks` and `alibi_slopes` are `[H]`."""

    scale: float
    softcap: float | None
    sinks: torch.Tensor | None
    alibi_slopes: torch.Tensor | None

    @property
    def is_plain(self) -> bool:
        """Whether scaled_dot_product_attention computes it."""
        return self.softcap is None and self.sinks is None


class PagedAttention:
    """Attends one layer at a time for a step; there is one step at a time."""

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        self._batch: Batch | None = None
        self._layout: StepLayout | None = None

    @contextmanager
    def step(self, batch: Batch) -> Iterator[None]:
        """Everything attended inside belongs to this batch."""
        self._batch = batch
        try:
            yield
        finally:
            self._batch = self._layout = None

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
        """Store the step's keys and values, and attend each query to its own sequence's keys, as far as `reach`.

        query `[H, T, Dk]`, key `[Hkv, T, Dk]`, value `[Hkv, T, Dv]`; returns `[T, H, Dv]`. `softcap` bounds scores to
        ± softcap (section 2 of https://arxiv.org/abs/2408.00118). `sinks` `[H]` take part in the softmax and add
        nothing (https://arxiv.org/abs/2309.17453). With `alibi_slopes` `[H]`, a key at position p adds slope × p to its
        score (https://arxiv.org/abs/2108.12409, up to a constant in each row).
        """
        layout = self._laid_out()
        scoring = _Scoring(scale, softcap, sinks, alibi_slopes)
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        keys.index_copy_(0, layout.new_slots, key.transpose(0, 1))
        values.index_copy_(0, layout.new_slots, value.transpose(0, 1))
        output = query.new_empty(query.shape[1], query.shape[0], value.shape[2])
        if (single := layout.single) is not None:
            mask = layout.single_mask(reach)
            k, v = _gathered(keys, single.slots), _gathered(values, single.slots)
            output[single.rows] = _attend_single(query[:, single.rows], k, v, mask, scoring)
        for index, chunk in enumerate(layout.chunks):
            rows = slice(chunk.first_row, chunk.last_row)
            mask = layout.chunk_mask(index, reach)
            k, v = _gathered(keys, chunk.slots), _gathered(values, chunk.slots)
            output[rows] = _attend_chunk(query[:, rows], k, v, mask, scoring)
        return output

    def _laid_out(self) -> StepLayout:
        """The step's layout, made when the first layer asks for it."""
        assert self._batch is not None, "attention outside a step"
        if self._layout is None:
            self._layout = StepLayout.of(self._batch, block_size=self._cache.block_size, device=self._cache.device)
        return self._layout


def _gathered(rows: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """`rows[slots]`, several times as fast on the CPU."""
    return rows.index_select(0, slots.flatten()).view(*slots.shape, *rows.shape[1:])


def _attend_single(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scoring: _Scoring
) -> torch.Tensor:
    """One query for each sequence. The heads of a KV group stand in for the query's length, which keeps SDPA fast.

    query `[H, B, Dk]`, keys `[B, S, Hkv, Dk]`, mask `[B, S]`; returns `[B, H, Dv]`.
    """
    num_heads, batch, _ = query.shape
    grouped = (1, keys.shape[2], -1, 1)  # of what is given by head: [1, Hkv, G, 1]
    q = query.transpose(0, 1).reshape(batch, keys.shape[2], -1, query.shape[2])  # [B, Hkv, G, Dk]
    attended = _attend(q, keys.transpose(1, 2), values.transpose(1, 2), mask[:, None, None, :], scoring, grouped)
    return attended.reshape(batch, num_heads, -1)


def _attend_chunk(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scoring: _Scoring
) -> torch.Tensor:
    """query `[H, L, Dk]`, keys `[S, Hkv, Dk]`, mask `[L, S]`; returns `[L, H, Dv]`."""
    k, v = keys.transpose(0, 1), values.transpose(0, 1)  # [Hkv, S, D]
    if scoring.is_plain:
        attended = _attend(query[None], k[None], v[None], mask, scoring, (-1, 1, 1))[0]
    else:
        q = query.view(k.shape[0], -1, *query.shape[1:])  # [Hkv, G, L, Dk]
        attended = _attend(q, k[:, None], v[:, None], mask, scoring, (k.shape[0], -1, 1, 1)).flatten(0, 1)
    return attended.transpose(0, 1)


def _attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    scoring: _Scoring,
    head_shape: tuple[int, ...],
) -> torch.Tensor:
    """query `[…, R, Dk]`, keys `[…, S, Dk]`, mask `[…, R, S]`; `head_shape` fits what heads have to scores."""
    if scoring.alibi_slopes is not None:
        mask = _with_alibi(mask, scoring.alibi_slopes.view(head_shape), query.dtype)
    if scoring.is_plain:
        grouped = query.shape[1] != keys.shape[1]
        return scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, scale=scoring.scale, enable_gqa=grouped
        )
    scores = (query @ keys.transpose(-1, -2)).float() * scoring.scale
    if scoring.softcap is not None:
        scores = torch.tanh(scores / scoring.softcap) * scoring.softcap
    scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    if scoring.sinks is not None:
        sinks = scoring.sinks.float().view(head_shape).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, sinks], dim=-1)
    weights = scores.softmax(dim=-1)[..., : keys.shape[-2]]
    return weights.to(values.dtype) @ values


def _with_alibi(mask: torch.Tensor, slopes: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """An additive mask: slope × key index where a key is seen, -inf elsewhere. Shapes broadcast."""
    bias = slopes * torch.arange(mask.shape[-1], device=mask.device)
    return torch.where(mask, bias, float("-inf")).to(dtype)
