"""Attention over the paged cache against the formula, one query at a time, in a cache full of what is not a number."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from server.engine.attention import PagedAttention
from server.engine.batch import Batch, ScheduledSequence
from server.engine.kv_cache import KVCache, LayerShape
from server.engine.sampling_params import SamplingParams
from server.engine.sequence import Sequence
from server.engine.step_layout import SEES_ALL, Reach, StepLayout

BLOCK_SIZE = 4
NUM_HEADS, NUM_KV_HEADS, KEY_DIM, VALUE_DIM = 4, 2, 8, 6
LENGTHS = ((20, 1), (3, 1), (11, 1), (9, 7), (0, 5), (30, 2))
"""By sequence: tokens whose KV is in the cache, and tokens of this step."""


@dataclass(frozen=True)
class Rule:
    """What a layer may ask for beyond the scale."""

    reach: Reach = SEES_ALL
    softcap: float | None = None
    sinks: torch.Tensor | None = None
    alibi_slopes: torch.Tensor | None = None


HEADS = torch.tensor([0.5, 0.25, -1.0, 2.0])
RULES = {
    "all keys": Rule(),
    "a window": Rule(reach=Reach(window=5)),
    "chunks": Rule(reach=Reach(chunk=8)),
    "alibi": Rule(alibi_slopes=HEADS),
    "a softcap": Rule(softcap=0.7),
    "sinks": Rule(sinks=HEADS),
    "all of it": Rule(Reach(window=9), 1.5, HEADS, HEADS / 3),
}


@dataclass(frozen=True)
class Tokens:
    """Queries `[H, L, Dk]`, keys `[Hkv, L, Dk]` and values `[Hkv, L, Dv]` of a whole sequence."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor

    def rows(self, first: int) -> "Tokens":
        return Tokens(self.query[:, first:], self.key[:, first:], self.value[:, first:])


def _tokens(length: int) -> Tokens:
    return Tokens(
        torch.randn(NUM_HEADS, length, KEY_DIM),
        torch.randn(NUM_KV_HEADS, length, KEY_DIM),
        torch.randn(NUM_KV_HEADS, length, VALUE_DIM),
    )


def _sequences() -> list[Sequence]:
    """Sequences whose blocks lie all over the cache; block 0 and the block after the last are nobody's."""
    blocks = (1 + torch.randperm(40)).tolist()
    sequences = []
    for number, (cached, new) in enumerate(LENGTHS):
        sequence = Sequence.create(number, list(range(cached + new)), SamplingParams(max_tokens=1), cache_seed=b"")
        sequence.block_table = [blocks.pop() for _ in range(-(-(cached + new) // BLOCK_SIZE))]
        sequences.append(sequence)
    return sequences


def _by_formula(tokens: Tokens, rule: Rule, position: int, head: int) -> torch.Tensor:
    group = head // (NUM_HEADS // NUM_KV_HEADS)
    first = 0
    if rule.reach.window is not None:
        first = max(first, position - rule.reach.window + 1)
    if rule.reach.chunk is not None:
        first = max(first, position // rule.reach.chunk * rule.reach.chunk)
    keys = slice(first, position + 1)
    scores = tokens.key[group, keys].double() @ tokens.query[head, position].double() * 0.3
    if rule.softcap is not None:
        scores = rule.softcap * torch.tanh(scores / rule.softcap)
    if rule.alibi_slopes is not None:
        scores = scores + rule.alibi_slopes[head].double() * torch.arange(first, position + 1)
    weights = scores.exp()
    total = weights.sum() + (0 if rule.sinks is None else rule.sinks[head].double().exp())
    return (weights / total) @ tokens.value[group, keys].double()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_each_query_attends_to_its_own_sequence_only(rule: Rule) -> None:
    torch.manual_seed(1)
    sequences = _sequences()
    all_tokens = [_tokens(cached + new) for cached, new in LENGTHS]
    layers = {0: LayerShape(NUM_KV_HEADS, KEY_DIM, VALUE_DIM)}
    cache = KVCache(layers, num_blocks=42, block_size=BLOCK_SIZE, dtype=torch.float32, device=torch.device("cpu"))
    cache.keys[0].fill_(torch.nan)
    cache.values[0].fill_(torch.nan)
    for sequence, tokens, (cached, _) in zip(sequences, all_tokens, LENGTHS, strict=True):
        for position in range(cached):
            slot = sequence.block_table[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE
            cache.keys[0][slot], cache.values[0][slot] = tokens.key[:, position], tokens.value[:, position]
    items = [ScheduledSequence(sequence, *lengths) for sequence, lengths in zip(sequences, LENGTHS, strict=True)]
    new = [tokens.rows(cached) for tokens, (cached, _) in zip(all_tokens, LENGTHS, strict=True)]
    attention = PagedAttention(cache)
    with attention.step(StepLayout.of(Batch(tuple(items), ()), block_size=BLOCK_SIZE, device=torch.device("cpu"))):
        packed = attention.attend(
            0,
            _packed(new, lambda tokens: tokens.query),
            _packed(new, lambda tokens: tokens.key),
            _packed(new, lambda tokens: tokens.value),
            scale=0.3,
            reach=rule.reach,
            softcap=rule.softcap,
            sinks=rule.sinks,
            alibi_slopes=rule.alibi_slopes,
        )
    expected = [
        torch.stack([_by_formula(tokens, rule, position, head) for head in range(NUM_HEADS)])
        for tokens, (cached, new_tokens) in zip(all_tokens, LENGTHS, strict=True)
        for position in range(cached, cached + new_tokens)
    ]
    assert torch.allclose(packed.double(), torch.stack(expected), atol=1e-5)


def _packed(parts: list[Tokens], part: Callable[[Tokens], torch.Tensor]) -> torch.Tensor:
    return torch.cat([part(tokens) for tokens in parts], dim=1)
