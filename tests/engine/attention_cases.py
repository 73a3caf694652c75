"""Attention by its formula, one query at a time, and sequences that lie in a cache full of what is not a number."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from adapters.fitting import LayerShape
from server.engine.batch import Batch, ScheduledSequence
from server.engine.kv_cache import KVCache
from server.engine.own_attention import Attend
from server.engine.sampling_params import SamplingParams
from server.engine.sequence import Sequence
from server.engine.step_layout import SEES_ALL, Reach

BLOCK_SIZE = 4
NUM_BLOCKS = 42
NUM_HEADS = 4
SCALE = 0.3
MIXED = ((20, 1), (3, 1), (11, 1), (9, 7), (0, 5), (30, 2))
"""By sequence: tokens whose KV is in the cache, and tokens of this step."""
DECODING = ((20, 1), (3, 1), (0, 1), (11, 1))


@dataclass(frozen=True)
class Rule:
    """What a layer may ask for beyond the scale."""

    reach: Reach = SEES_ALL
    softcap: float | None = None
    sinks: torch.Tensor | None = None
    alibi_slopes: torch.Tensor | None = None


HEADS = torch.tensor([0.5, 0.25, -1.0, 2.0])
RULES: Mapping[str, Rule] = {
    "all keys": Rule(),
    "a window": Rule(reach=Reach(window=5)),
    "chunks": Rule(reach=Reach(chunk=8)),
    "alibi": Rule(alibi_slopes=HEADS),
    "a softcap": Rule(softcap=0.7),
    "sinks": Rule(sinks=HEADS),
    "all of it": Rule(Reach(window=9), 1.5, HEADS, HEADS / 3),
}


@dataclass(frozen=True)
class _Tokens:
    """Queries `[H, L, Dk]`, keys `[Hkv, L, Dk]` and values `[Hkv, L, Dv]` of a whole sequence."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor

    def rows(self, first: int) -> "_Tokens":
        return _Tokens(self.query[:, first:], self.key[:, first:], self.value[:, first:])


@dataclass(frozen=True)
class Case:
    """A step over sequences whose blocks lie all over a cache; foreign blocks hold what is not a number."""

    cache: KVCache
    batch: Batch
    _tokens: tuple[_Tokens, ...]

    @classmethod
    def of(
        cls, lengths: tuple[tuple[int, int], ...], shape: LayerShape, *, dtype: torch.dtype = torch.float32
    ) -> "Case":
        """Random tokens of sequences with so many in the cache, and so many in this step."""
        torch.manual_seed(1)
        blocks = (1 + torch.randperm(NUM_BLOCKS - 2)).tolist()
        cache = KVCache(
            {0: shape}, num_blocks=NUM_BLOCKS, block_size=BLOCK_SIZE, dtype=dtype, device=torch.device("cpu")
        )
        cache.keys[0].fill_(torch.nan)
        cache.values[0].fill_(torch.nan)
        items, all_tokens = [], []
        for number, (cached, new) in enumerate(lengths):
            sequence = Sequence.create(number, list(range(cached + new)), SamplingParams(max_tokens=1), cache_seed=b"")
            sequence.block_table = [blocks.pop() for _ in range(-(-(cached + new) // BLOCK_SIZE))]
            tokens = _Tokens(
                torch.randn(NUM_HEADS, cached + new, shape.key_dim, dtype=dtype),
                torch.randn(shape.num_kv_heads, cached + new, shape.key_dim, dtype=dtype),
                torch.randn(shape.num_kv_heads, cached + new, shape.value_dim, dtype=dtype),
            )
            for position in range(cached):
                slot = sequence.block_table[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE
                cache.keys[0][slot], cache.values[0][slot] = tokens.key[:, position], tokens.value[:, position]
            items.append(ScheduledSequence(sequence, cached, new))
            all_tokens.append(tokens)
        return cls(cache, Batch(tuple(items), ()), tuple(all_tokens))

    def attended(self, attend: Attend, rule: Rule) -> torch.Tensor:
        """What `attend` makes of the step, `[T, H, Dv]`."""
        return attend(
            0,
            self._packed(lambda tokens: tokens.query),
            self._packed(lambda tokens: tokens.key),
            self._packed(lambda tokens: tokens.value),
            scale=SCALE,
            reach=rule.reach,
            softcap=rule.softcap,
            sinks=rule.sinks,
            alibi_slopes=rule.alibi_slopes,
        )

    def expected(self, rule: Rule) -> torch.Tensor:
        """The same by the formula, in float64."""
        return torch.stack(
            [
                torch.stack([_by_formula(tokens, rule, position, head) for head in range(NUM_HEADS)])
                for tokens, item in zip(self._tokens, self.batch.items, strict=True)
                for position in range(item.start, item.stop)
            ]
        )

    def _packed(self, part: Callable[[_Tokens], torch.Tensor]) -> torch.Tensor:
        parts = zip(self._tokens, self.batch.items, strict=True)
        return torch.cat([part(tokens.rows(item.start)) for tokens, item in parts], dim=1)


def _by_formula(tokens: _Tokens, rule: Rule, position: int, head: int) -> torch.Tensor:
    group = head // (NUM_HEADS // tokens.key.shape[0])
    first = 0
    if rule.reach.window is not None:
        first = max(first, position - rule.reach.window + 1)
    if rule.reach.chunk is not None:
        first = max(first, position // rule.reach.chunk * rule.reach.chunk)
    keys = slice(first, position + 1)
    scores = tokens.key[group, keys].double() @ tokens.query[head, position].double() * SCALE
    if rule.softcap is not None:
        scores = rule.softcap * torch.tanh(scores / rule.softcap)
    if rule.alibi_slopes is not None:
        scores = scores + rule.alibi_slopes[head].double() * torch.arange(first, position + 1)
    weights = scores.exp()
    total = weights.sum() + (0 if rule.sinks is None else rule.sinks[head].double().exp())
    return (weights / total) @ tokens.value[group, keys].double()
