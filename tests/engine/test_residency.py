"""Virtual tokens in the KV cache: what stays, what leaves, and what a working set larger than the cache costs."""

import random
from collections.abc import Iterable

import pytest
import torch

from adapters.injections import SoftPrompt
from server.engine.engine import Engine
from tests.engine.build import engine_of, greedy, run_to_end
from tests.tiny import HIDDEN_SIZE, tiny_model

NUM_VIRTUAL_TOKENS = 32
"""Two blocks, so that a cache of 61 blocks holds 29 adapters beside the block of one short prompt."""


def _soft_prompt(number: int, *, num_virtual_tokens: int = NUM_VIRTUAL_TOKENS) -> SoftPrompt:
    rows = torch.randn(num_virtual_tokens, HIDDEN_SIZE, generator=torch.Generator().manual_seed(number))
    return SoftPrompt(f"adapter {number}", rows)


def _engine(num_blocks: int = 61) -> Engine:
    return engine_of(tiny_model("llama"), num_blocks=num_blocks, max_model_len=160)


def _prefill(engine: Engine, soft_prompt: SoftPrompt, *, is_pinned: bool = False) -> None:
    engine.add_request(0, [], None, soft_prompt, is_pinned=is_pinned)
    run_to_end(engine)


def _num_hits(engine: Engine, adapters: Iterable[int]) -> int:
    """How many requests, one after the other, find the virtual tokens of their adapter in the cache."""
    hits = 0
    for adapter in adapters:
        before = engine.stats().num_virtual_tokens_computed
        engine.add_request(1, [1, 2, 3], greedy(2), _soft_prompt(adapter))
        run_to_end(engine)
        hits += engine.stats().num_virtual_tokens_computed == before
    return hits


def test_a_working_set_that_fits_is_computed_once() -> None:
    assert _num_hits(_engine(), list(range(29)) * 4) == 29 * 3


def test_uniform_traffic_over_more_than_fits_hits_by_the_share_that_fits() -> None:
    rng = random.Random(1)
    engine = _engine()
    _num_hits(engine, range(100))
    assert 0.2 < _num_hits(engine, [rng.randrange(100) for _ in range(500)]) / 500 < 0.4


def test_skewed_traffic_hits_by_more_than_the_share_that_fits() -> None:
    rng = random.Random(2)
    weights = [1 / (rank + 1) for rank in range(100)]
    assert _num_hits(_engine(), rng.choices(range(100), weights, k=500)) / 500 > 0.5


def test_a_cycle_over_more_than_fits_never_hits_and_costs_the_virtual_tokens_of_each_request() -> None:
    """The worst case of least recently used: each request pays for its adapter's virtual tokens, and for no more."""
    engine = _engine()
    assert _num_hits(engine, list(range(100)) * 2) == 0
    assert engine.stats().num_virtual_tokens_computed == 200 * NUM_VIRTUAL_TOKENS


@pytest.mark.parametrize("num_virtual_tokens", [5, 16, 20, 32])
@pytest.mark.parametrize("is_used_before", [False, True])
def test_a_pinned_adapter_stays_whatever_comes(num_virtual_tokens: int, is_used_before: bool) -> None:  # noqa: FBT001
    """Also where a request has left the same content in blocks of its own, which are not held."""
    engine = _engine()
    soft_prompt = _soft_prompt(7, num_virtual_tokens=num_virtual_tokens)
    if is_used_before:
        engine.add_request(1, [1, 2, 3], greedy(2), soft_prompt)
        run_to_end(engine)
    for _ in range(2):
        _prefill(engine, soft_prompt, is_pinned=True)
    assert engine.stats().num_pinned_blocks == -(-num_virtual_tokens // 16)
    _num_hits(engine, range(100, 200))
    computed = engine.stats().num_virtual_tokens_computed
    engine.add_request(1, [1, 2, 3], greedy(2), soft_prompt)
    run_to_end(engine)
    assert engine.stats().num_virtual_tokens_computed == computed


def test_an_unpinned_adapter_leaves_like_any_other() -> None:
    engine = _engine()
    _prefill(engine, _soft_prompt(7), is_pinned=True)
    for _ in range(2):
        engine.unpin("adapter 7")
    stats = engine.stats()
    assert (stats.num_pinned_blocks, stats.num_free_blocks) == (0, 61)
    assert _num_hits(engine, [7, *range(100, 140), 7]) == 1


@pytest.mark.parametrize(("num_blocks", "most_pinned"), [(61, 30), (15, 4), (11, 0)])
def test_pins_leave_half_of_the_cache_and_the_longest_request_its_room(num_blocks: int, most_pinned: int) -> None:
    """160 tokens are 10 blocks, and one is there to copy from."""
    engine = _engine(num_blocks)
    for number in range(40):
        _prefill(engine, _soft_prompt(number), is_pinned=True)
    assert engine.stats().num_pinned_blocks == most_pinned
    engine.add_request(1, list(range(120)), greedy(8), _soft_prompt(50))
    assert len(run_to_end(engine)[1]) > 0
