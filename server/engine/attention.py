"""Attention over the paged cache, for all sequences of a step at once. Knows no models: `families` plugs it into them.

The step's tokens lie packed in one row. Sequences that compute one token share one padded call; each longer chunk has a
call of its own. Both are scaled_dot_product_attention over keys and values gathered by slot, on any device.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch.nn.functional import scaled_dot_product_attention

from server.engine.batch import Batch, ScheduledSequence
from server.engine.kv_cache import KVCache


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One sequence's tokens: rows `[first_row, last_row)` of the packed step, keys at `slots` `[S]`."""

    first_row: int
    last_row: int
    start: int
    slots: torch.Tensor

    def positions(self) -> torch.Tensor:
        """Positions of the queries, `[L, 1]`."""
        length = self.last_row - self.first_row
        return torch.arange(self.start, self.start + length, device=self.slots.device)[:, None]


@dataclass(frozen=True, slots=True)
class _SingleTokens:
    """The sequences that compute one token.

    Their packed rows `[B]`, key slots `[B, S]` (0 beyond a sequence's end), and positions `[B, 1]` of their queries.
    """

    rows: torch.Tensor
    slots: torch.Tensor
    positions: torch.Tensor


@dataclass(frozen=True, slots=True)
class StepLayout:
    """Where the tokens of a step are: in the packed row, and in the cache."""

    new_slots: torch.Tensor  # [T], where each token's own KV goes
    single: _SingleTokens | None
    chunks: tuple[_Chunk, ...]
    _masks: dict[tuple[int | None, int], torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, batch: Batch, *, block_size: int, device: torch.device) -> "StepLayout":
        """Lay out a batch whose items are packed in order."""
        slots = [_slots(item, block_size) for item in batch.items]
        rows, row = [], 0
        for item in batch.items:
            rows.append(row)
            row += item.num_tokens
        new_slots = torch.cat([seq_slots[item.start :] for item, seq_slots in zip(batch.items, slots, strict=True)])
        single = [i for i, item in enumerate(batch.items) if item.num_tokens == 1]
        chunks = tuple(
            _Chunk(rows[i], rows[i] + item.num_tokens, item.start, slots[i].to(device))
            for i, item in enumerate(batch.items)
            if item.num_tokens > 1
        )
        return cls(new_slots.to(device), _single_tokens(batch, rows, slots, single, device), chunks)

    def single_mask(self, window: int | None) -> torch.Tensor:
        """Which keys each single query sees, `[B, S]`."""
        assert self.single is not None, "asked for only where there are single tokens"
        key = (window, -1)
        if key not in self._masks:
            keys = torch.arange(self.single.slots.shape[1], device=self.single.slots.device)[None, :]
            self._masks[key] = _sees(keys, self.single.positions, window)
        return self._masks[key]

    def chunk_mask(self, index: int, window: int | None) -> torch.Tensor:
        """Which keys each query of a chunk sees, `[L, S]`."""
        key = (window, index)
        if key not in self._masks:
            chunk = self.chunks[index]
            keys = torch.arange(chunk.slots.shape[0], device=chunk.slots.device)[None, :]
            self._masks[key] = _sees(keys, chunk.positions(), window)
        return self._masks[key]


class PagedAttention:
    """Attends one layer at a time for the step that is laid out; there is one step at a time."""

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        self._layout: StepLayout | None = None

    @contextmanager
    def step(self, layout: StepLayout) -> Iterator[None]:
        """Everything attended inside belongs to this step."""
        self._layout = layout
        try:
            yield
        finally:
            self._layout = None

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        scale: float,
        window: int | None = None,
        alibi_slopes: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Store the step's keys and values, and attend each query to all of its own sequence's keys.

        query `[H, T, Dk]`, key `[Hkv, T, Dk]`, value `[Hkv, T, Dv]`, alibi_slopes `[H]`; returns `[T, H, Dv]`. A key at
        position p adds slope × p to its score (ALiBi, https://arxiv.org/abs/2108.12409, up to a constant in each row).
        """
        layout = self._layout
        assert layout is not None, "attention outside a step"
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        keys[layout.new_slots] = key.transpose(0, 1)
        values[layout.new_slots] = value.transpose(0, 1)
        output = query.new_empty(query.shape[1], query.shape[0], value.shape[2])
        if layout.single is not None:
            single = _attend_single(query, keys, values, layout, layout.single, scale, window, alibi_slopes)
            output[layout.single.rows] = single
        for index, chunk in enumerate(layout.chunks):
            mask = layout.chunk_mask(index, window)
            output[chunk.first_row : chunk.last_row] = _attend_chunk(
                query[:, chunk.first_row : chunk.last_row],
                keys[chunk.slots],
                values[chunk.slots],
                mask,
                scale,
                alibi_slopes,
            )
        return output


def _attend_single(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    layout: StepLayout,
    single: _SingleTokens,
    scale: float,
    window: int | None,
    alibi_slopes: torch.Tensor | None,
) -> torch.Tensor:
    """One query for each sequence. The heads of a KV group stand in for the query's length, which keeps SDPA fast."""
    num_kv_heads = keys.shape[1]
    batch = single.rows.shape[0]
    q = query[:, single.rows].transpose(0, 1).reshape(batch, num_kv_heads, -1, query.shape[2])  # [B, Hkv, G, Dk]
    k = keys[single.slots].transpose(1, 2)  # [B, Hkv, S, Dk]
    v = values[single.slots].transpose(1, 2)
    mask = layout.single_mask(window)[:, None, None, :]  # [B, 1, 1, S]
    if alibi_slopes is not None:
        mask = _with_alibi(mask, alibi_slopes.view(1, num_kv_heads, -1, 1), q.dtype)
    attended = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return attended.reshape(batch, query.shape[0], -1)


def _attend_chunk(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    scale: float,
    alibi_slopes: torch.Tensor | None,
) -> torch.Tensor:
    """query `[H, L, Dk]`, keys `[S, Hkv, Dk]`, mask `[L, S]`; returns `[L, H, Dv]`."""
    if alibi_slopes is not None:
        mask = _with_alibi(mask[None], alibi_slopes[:, None, None], query.dtype)
    k, v = keys.transpose(0, 1)[None], values.transpose(0, 1)[None]
    grouped = query.shape[0] != keys.shape[1]
    attended = scaled_dot_product_attention(query[None], k, v, attn_mask=mask, scale=scale, enable_gqa=grouped)
    return attended[0].transpose(0, 1)


def _with_alibi(mask: torch.Tensor, slopes: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """An additive mask: slope × key index where a key is seen, -inf elsewhere. Shapes broadcast."""
    bias = slopes * torch.arange(mask.shape[-1], device=mask.device)
    return torch.where(mask, bias, float("-inf")).to(dtype)


def _sees(keys: torch.Tensor, positions: torch.Tensor, window: int | None) -> torch.Tensor:
    seen = keys <= positions
    return seen if window is None else seen & (keys > positions - window)


def _slots(item: ScheduledSequence, block_size: int) -> torch.Tensor:
    """Slots of the positions `[0, item.stop)`."""
    blocks = torch.tensor(item.sequence.block_table)
    slots = blocks[:, None] * block_size + torch.arange(block_size)
    return slots.flatten()[: item.stop]


def _single_tokens(
    batch: Batch, rows: list[int], slots: list[torch.Tensor], single: list[int], device: torch.device
) -> _SingleTokens | None:
    if not single:
        return None
    padded = torch.nn.utils.rnn.pad_sequence([slots[i] for i in single], batch_first=True)
    positions = torch.tensor([batch.items[i].start for i in single])[:, None]
    return _SingleTokens(
        torch.tensor([rows[i] for i in single], device=device), padded.to(device), positions.to(device)
    )
