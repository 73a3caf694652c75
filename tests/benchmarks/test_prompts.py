"""Prompts have the length that is asked for, and no two are alike by accident."""

from random import Random

import pytest

from benchmarks.prompts import PromptWriter


def _by_words(text: str) -> int:
    return len(text.split()) + 20


def _by_bytes(text: str) -> int:
    return len(text.encode()) + 20


@pytest.mark.parametrize("tokens", [98, 1_500, 4_000])
def test_a_token_for_each_word_is_met_exactly(tokens: int) -> None:
    assert _by_words(PromptWriter(_by_words).write(Random(1), tokens)) == tokens


@pytest.mark.parametrize("tokens", [98, 700])
def test_many_tokens_a_word_stay_within_the_limit_and_near_it(tokens: int) -> None:
    for seed in range(20):
        written = _by_bytes(PromptWriter(_by_bytes).write(Random(seed), tokens))
        assert tokens - 30 < written <= tokens


def test_the_source_of_randomness_decides() -> None:
    writer = PromptWriter(_by_words)
    assert writer.write(Random("a"), 98) == writer.write(Random("a"), 98)
    assert len({writer.write(Random(seed), 98) for seed in range(100)}) == 100
