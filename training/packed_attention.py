"""Attention over a pack: each row sees the shared prefix and itself. Knows tensors and layouts, no model.

Shapes: T packed tokens, Hkv heads of keys, G heads of queries to each, R rows of at most L own tokens, S keys of the
prefix, D values of a head.
"""

from dataclasses import dataclass
from typing import Any

import torch

from training.packing import Layout


@dataclass(frozen=True, slots=True)
class GivenKV:
    """Keys and values of one layer that stand before everything, `[Hkv, n, D]` each: those of prefix tuning."""

    keys: torch.Tensor
    values: torch.Tensor


def attend_together(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    layout: Layout,
    scale: float,
    given: GivenKV | None = None,
    slopes: torch.Tensor | None = None,
) -> torch.Tensor:
    """`pack_attention` for several models with packs of one layout: query `[models, H, T, D]`; `[models, T, H, D]`.

    Heads do not see one another, so that models are nothing but more heads: each of Hkv becomes `models` of them. The
    `given` keys and values are of `Hkv * models` heads already.
    """
    models, heads, tokens, width = query.shape
    kv_heads = key.shape[1]
    groups = heads // kv_heads
    queries = query.view(models, kv_heads, groups, tokens, width).transpose(0, 1).reshape(-1, tokens, width)
    mixed = pack_attention(
        queries,
        key.transpose(0, 1).flatten(0, 1),
        value.transpose(0, 1).flatten(0, 1),
        layout=layout,
        scale=scale,
        given=given,
        slopes=None if slopes is None else slopes.repeat_interleave(models),
    )
    by_model = mixed.view(tokens, kv_heads, models, groups, -1).permute(2, 0, 1, 3, 4)
    return by_model.reshape(models, tokens, heads, -1)


def pack_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    layout: Layout,
    scale: float,
    given: GivenKV | None = None,
    slopes: torch.Tensor | None = None,
) -> torch.Tensor:
    """query `[H, T, D]`, key and value `[Hkv, T, D]`; returns `[T, H, D]`.

    `slopes` `[H]` are ALiBi's: slope times the key's position is added to a score, where H is Hkv.
    """
    num_given = 0
    if given is not None:
        num_given = given.keys.shape[1]
        key, value = torch.cat([given.keys.to(key), key], dim=1), torch.cat([given.values.to(value), value], dim=1)
    output: torch.Tensor = _PackAttention.apply(  # type: ignore[no-untyped-call]
        query, key, value, layout, num_given, scale, slopes
    )
    return output


class _PackAttention(torch.autograd.Function):
    """Keeps queries, keys and values for the backward pass, and no scores: those are computed again.

    `key` and `value` have the given ones first; a pack's places count without them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        layout: Layout,
        num_given: int,
        scale: float,
        slopes: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.layout, ctx.num_given, ctx.scale, ctx.slopes = layout, num_given, scale, slopes
        heads, tokens, _ = query.shape
        output = query.new_empty(tokens, heads, value.shape[2])
        for part in _parts(query, key, value, layout, num_given):
            mixed = _probabilities(part, scale, slopes) @ part.values  # [Hkv, R, G * L, D]
            output[part.start : part.end] = _from_grid(mixed, part, layout).transpose(0, 1)
        return output

    @staticmethod
    def backward(ctx: Any, *slopes_of_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        layout: Layout = ctx.layout
        up = slopes_of_output[0].transpose(0, 1)  # [H, T, D]
        into_query = torch.empty_like(query)
        into_key, into_value = torch.empty_like(key), torch.empty_like(value)
        shared_keys = ctx.num_given + layout.num_shared
        of_shared: list[tuple[torch.Tensor, torch.Tensor]] = []
        for part in _parts(query, key, value, layout, ctx.num_given):
            chances = _probabilities(part, ctx.scale, ctx.slopes)
            above = _up_to_grid(up, part, layout)  # [Hkv, R, G * L, D]
            into_scores = torch.ops.aten._softmax_backward_data(
                above @ part.values.transpose(2, 3), chances, -1, chances.dtype
            ).mul_(ctx.scale)
            into_query[:, part.start : part.end] = _from_grid(into_scores @ part.keys, part, layout)
            into_keys = into_scores.transpose(2, 3) @ part.queries  # [Hkv, R, S + L, D]
            into_values = chances.transpose(2, 3) @ above
            if part.is_shared:
                of_shared.append((into_keys[:, 0], into_values[:, 0]))
                continue
            of_shared.append((into_keys[:, :, :shared_keys].sum(dim=1), into_values[:, :, :shared_keys].sum(dim=1)))
            into_key[:, shared_keys:] = into_keys[:, :, shared_keys:].flatten(1, 2).index_select(1, layout.places)
            into_value[:, shared_keys:] = into_values[:, :, shared_keys:].flatten(1, 2).index_select(1, layout.places)
        into_key[:, :shared_keys] = sum(keys for keys, _ in of_shared)
        into_value[:, :shared_keys] = sum(values for _, values in of_shared)
        return into_query, into_key, into_value, None, None, None, None


@dataclass(frozen=True, slots=True)
class _Part:
    """One dense piece of a pack's attention: the prefix over itself, or all rows over the prefix and themselves.

    `queries` `[Hkv, R, G * L, D]`, `keys` and `values` `[Hkv, R, keys, D]`; its queries are the packed tokens from
    `start` to `end`; a query sees the `seen` first keys, and as many more as its place in the row says.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    start: int
    end: int
    seen: int
    longest: int
    is_shared: bool


def _parts(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, num_given: int) -> list[_Part]:
    shared, tokens = layout.num_shared, query.shape[1]
    kv_heads = key.shape[0]
    last = num_given + shared
    parts = []
    if shared:
        queries = query[:, :shared].reshape(kv_heads, 1, -1, query.shape[2])
        parts.append(
            _Part(queries, key[:, None, :last], value[:, None, :last], 0, shared, num_given, shared, is_shared=True)
        )
    keys, values = (_with_prefix(each, layout, num_given) for each in (key, value))
    queries = _to_grid(query, layout, kv_heads)
    parts.append(_Part(queries, keys, values, shared, tokens, last, layout.longest, is_shared=False))
    return parts


def _with_prefix(packed: torch.Tensor, layout: Layout, num_given: int) -> torch.Tensor:
    """`[Hkv, R, S + L, D]` of `[Hkv, given + T, D]`."""
    heads, _, width = packed.shape
    own = packed.index_select(1, layout.grid + num_given).view(heads, layout.rows, layout.longest, width)
    prefix = packed[:, None, : num_given + layout.num_shared].expand(-1, layout.rows, -1, -1)
    return torch.cat([prefix, own], dim=2)


def _to_grid(packed: torch.Tensor, layout: Layout, kv_heads: int) -> torch.Tensor:
    """`[Hkv, R, G * L, D]` of `[H, T, D]`; what fills a row up is some value."""
    width = packed.shape[2]
    cells = packed.index_select(1, layout.grid).view(kv_heads, -1, layout.rows, layout.longest, width)
    return cells.transpose(1, 2).reshape(kv_heads, layout.rows, -1, width)


def _up_to_grid(up: torch.Tensor, part: _Part, layout: Layout) -> torch.Tensor:
    """The same of gradients `[H, T, D]`, with zeros where a row is filled up."""
    kv_heads = part.queries.shape[0]
    if part.is_shared:
        return up[:, : part.end].reshape(kv_heads, 1, -1, up.shape[2])
    grid = _to_grid(up, layout, kv_heads)
    if layout.is_padded:
        cells = grid.view(kv_heads, layout.rows, -1, layout.longest, up.shape[2])
        cells.mul_(layout.is_real[:, None, :, None])
    return grid


def _from_grid(cells: torch.Tensor, part: _Part, layout: Layout) -> torch.Tensor:
    """`[H, tokens of the part, D]` of `[Hkv, R, G * L, D]`."""
    kv_heads, rows, _, width = cells.shape
    by_head = (
        cells.view(kv_heads, rows, -1, part.longest, width).transpose(1, 2).reshape(-1, rows * part.longest, width)
    )
    return by_head if part.is_shared else by_head.index_select(1, layout.places)


def _probabilities(part: _Part, scale: float, slopes: torch.Tensor | None) -> torch.Tensor:
    """`[Hkv, R, G * L, keys]`."""
    num_keys = part.keys.shape[2]
    scores = (part.queries @ part.keys.transpose(2, 3)).mul_(scale)
    by_place = scores.view(*scores.shape[:2], -1, part.longest, num_keys)
    unseen = torch.ones(part.longest, num_keys, dtype=torch.bool, device=scores.device).triu_(part.seen + 1)
    if slopes is not None:
        # A row's keys stand at the positions 0, 1, 2 and so on, whatever its place in the pack.
        by_place.add_((slopes[:, None] * torch.arange(num_keys, device=slopes.device)).to(scores)[:, None, None, None])
    by_place.masked_fill_(unseen, float("-inf"))
    return scores.softmax(dim=-1)
