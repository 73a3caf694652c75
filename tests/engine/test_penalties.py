"""Bias and penalties against values computed by hand."""

import math

import pytest
import torch

from server.engine.penalties import apply_tables
from server.engine.sampling_params import SamplingParams
from server.engine.sequence import Sequence
from server.engine.token_table import TokenTable
from tests.engine.rows import Setting, row, tokens

LOGITS = [2.0, -1.0, 0.5, 3.0, 0.0, -4.0]


def _after(made: list[int], prompt: list[int] = (), **settings: Setting) -> list[float]:  # type: ignore[assignment]
    """`LOGITS` after a sequence has made some tokens."""
    table = TokenTable(SamplingParams(max_tokens=1, **settings), prompt)  # type: ignore[arg-type]
    for token_id in made:
        table.add(token_id)
    logits = torch.tensor([LOGITS, LOGITS])
    apply_tables(logits, {1: table})
    assert logits[0].tolist() == LOGITS, "the neighbour"
    changed: list[float] = logits[1].tolist()
    return changed


def test_presence_counts_once_and_frequency_every_time() -> None:
    made = [0, 3, 0, 0]
    assert _after(made, presence_penalty=0.5) == pytest.approx([1.5, -1, 0.5, 2.5, 0, -4])
    assert _after(made, frequency_penalty=0.5) == pytest.approx([0.5, -1, 0.5, 2.5, 0, -4])
    assert _after(made, frequency_penalty=0.5, presence_penalty=-2) == pytest.approx([2.5, -1, 0.5, 4.5, 0, -4])
    assert _after([], frequency_penalty=2, presence_penalty=2) == LOGITS


def test_the_prompt_counts_for_repetition_alone() -> None:
    prompt = [1, 3, 3]
    assert _after([0], prompt, presence_penalty=1, frequency_penalty=1) == pytest.approx([0, -1, 0.5, 3, 0, -4])
    assert _after([0], prompt, repetition_penalty=2) == pytest.approx([1, -2, 0.5, 1.5, 0, -4])
    assert _after([5], prompt, repetition_penalty=0.5) == pytest.approx([2, -0.5, 0.5, 6, 0, -2])


def test_bias_comes_before_repetition_and_repetition_before_the_counts() -> None:
    bias = ((1, 5.0), (3, -4.0), (4, 2.0), (4, 1.0))
    assert _after([0], logit_bias=bias) == pytest.approx([2, 4, 0.5, -1, 3, -4])
    together = _after([1, 3, 3], [4], logit_bias=bias, repetition_penalty=2, frequency_penalty=0.25, presence_penalty=1)
    assert together == pytest.approx([2, 4 / 2 - 1.25, 0.5, -1 * 2 - 1.5, 3 / 2, -4])


def test_extreme_penalties_stay_finite_and_what_the_model_rules_out_stays_so() -> None:
    for repetition in (5e-324, 1e-30, 1e30, 1.7e308):
        assert all(math.isfinite(logit) for logit in _after([0, 1, 4], repetition_penalty=repetition))
    table = TokenTable(SamplingParams(max_tokens=1, logit_bias=((0, 100.0), (1, 100.0))), [])
    logits = torch.tensor([[-torch.inf, torch.nan, 1.0]])
    apply_tables(logits, {0: table})
    assert logits[0, 0] == -torch.inf
    assert logits[0, 1].isnan()


def test_a_table_grows_with_the_answer() -> None:
    params = SamplingParams(max_tokens=1, frequency_penalty=0.01, logit_bias=tuple((i, 1.0) for i in range(0, 600, 2)))
    table = TokenTable(params, [])
    for token_id in [*range(500), *range(0, 500, 5)]:
        table.add(token_id)
    logits = torch.zeros(1, 1000)
    apply_tables(logits, {0: table})
    counts = torch.zeros(1000)
    counts[:500] += 1
    counts[0:500:5] += 1
    expected = -0.01 * counts
    expected[0:600:2] += 1
    assert torch.allclose(logits[0], expected)
    assert len(table.ids) == len(set(table.ids.tolist())) == 550


def test_a_sequence_without_such_settings_has_no_table() -> None:
    def table_of(**settings: Setting) -> TokenTable | None:
        params = SamplingParams(max_tokens=1, **settings)  # type: ignore[arg-type]
        return Sequence.create(1, [1, 2], params, cache_seed=b"", num_virtual_tokens=3).token_table

    assert table_of(min_tokens=1, num_logprobs=5, top_p=0.5) is None
    many: list[dict[str, Setting]] = [{"presence_penalty": 1}, {"frequency_penalty": 1}, {"logit_bias": ((1, 1.0),)}]
    assert all(table_of(**settings) is not None for settings in many)
    repeating = table_of(repetition_penalty=1.2)
    assert repeating is not None
    assert repeating.ids.tolist() == [1, 2]  # virtual tokens are no tokens to repeat


def test_stop_tokens_wait_for_min_tokens() -> None:
    logits = torch.tensor([[0.0, 5.0, 4.0, 3.0]])
    stop = frozenset({1, 2, 1000})

    def chosen(position: int) -> int:
        return tokens(logits, [row(position, temperature=0.0, min_tokens=2, stop_token_ids=stop)])[0]

    assert [chosen(position) for position in range(4)] == [3, 3, 1, 1]


def test_settings_out_of_range_are_refused_by_name() -> None:
    wrong: list[tuple[str, Setting]] = [
        ("max_tokens", -1),
        ("min_tokens", -1),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", math.nan),
        ("top_k", 0),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("min_p", math.nan),
        ("presence_penalty", 2.1),
        ("presence_penalty", math.nan),
        ("frequency_penalty", -2.1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.inf),
        ("repetition_penalty", math.nan),
        ("logit_bias", ((0, 100.1),)),
        ("logit_bias", ((0, math.nan),)),
        ("logit_bias", ((-1, 0.0),)),
        ("num_logprobs", -1),
        ("num_logprobs", 21),
    ]
    for name, value in wrong:
        with pytest.raises(ValueError, match=name):
            SamplingParams(**{"max_tokens": 1, name: value})  # type: ignore[arg-type]
