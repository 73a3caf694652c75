"""Per-row sampling: every row by its own settings, and never by its neighbours."""

import pytest
import torch

from server.engine.errors import NoTokenAllowed, SequenceFailed
from server.engine.sampler import Choice
from server.engine.sampling_params import SamplingParams
from server.engine.sampling_row import SamplingRow
from server.engine.token_table import TokenTable
from tests.engine.rows import Allowing, Setting, draws, outcomes, row, tokens


def test_greedy_takes_the_most_likely_token_and_the_lowest_id_among_equals() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 2.0]])
    assert tokens(logits, [row(temperature=0.0)] * 2) == [1, 0]


def test_temperature_sharpens_and_flattens() -> None:
    logits = torch.tensor([[0.0, 1.0]])
    cold, hot = (draws(logits, 5000, seed=1, temperature=t).count(1) / 5000 for t in (0.25, 4.0))
    assert abs(cold - 0.982) < 0.01
    assert abs(hot - 0.562) < 0.025


def test_a_temperature_near_zero_is_greedy() -> None:
    logits = torch.tensor([[1e30, -1e30, 1e30 * 0.99], [3.0, 2.9, -torch.inf]])
    assert tokens(logits, [row(temperature=1e-300, seed=i) for i in range(2)]) == [0, 0]


def test_top_k_and_top_p_and_min_p_leave_only_the_head() -> None:
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()[None]
    assert set(draws(logits, 2000, top_k=2)) == {0, 1}
    assert set(draws(logits, 2000, top_k=1)) == {0}
    assert set(draws(logits, 2000, top_p=0.6)) == {0, 1}
    assert set(draws(logits, 2000, top_p=0.01)) == {0}
    assert set(draws(logits, 2000, top_k=3, top_p=0.99)) == {0, 1, 2}
    assert set(draws(logits, 2000, top_k=1_000_000)) == {0, 1, 2, 3}
    assert set(draws(logits, 2000, min_p=0.7)) == {0, 1}
    assert set(draws(logits, 2000, min_p=1.0)) == {0}
    assert set(draws(logits, 2000, min_p=0.4, top_p=0.7)) == {0, 1}  # of what min_p leaves, 0.44 + 0.33 reach 0.7
    assert set(draws(logits, 2000, min_p=0.4, top_p=0.8)) == {0, 1, 2}


def test_a_head_longer_than_what_is_looked_at_first_is_whole() -> None:
    logits = torch.linspace(1, 0, 1000)[None]
    assert set(draws(logits, 20_000, top_k=300, seed=1)) == set(range(300))
    longest = max(draws(logits, 20_000, top_p=0.5, seed=1))
    order = logits[0].softmax(dim=-1).cumsum(dim=-1)
    assert longest == int((order < 0.5).sum())


def test_draws_over_a_large_vocabulary_follow_the_distribution() -> None:
    """Beyond one block of the inversion, up to the last token, and never one of no probability."""
    probabilities = torch.zeros(1000)
    probabilities[[3, 255, 256, 700, 999]] = torch.tensor([0.1, 0.2, 0.3, 0.25, 0.15])
    many: list[dict[str, Setting]] = [{}, {"top_k": 5}, {"top_p": 0.999999}]
    for settings in many:
        drawn = torch.tensor(draws(probabilities.log()[None], 20_000, seed=2, **settings))
        shares = torch.bincount(drawn, minlength=1000) / 20_000
        assert torch.allclose(shares, probabilities, atol=0.012)
        assert not shares[probabilities == 0].any()


def _mixed_rows() -> list[SamplingRow]:
    """Every setting alone, and some together, greedy and drawn, free and constrained."""
    table = TokenTable(SamplingParams(max_tokens=1, frequency_penalty=1.5, logit_bias=((7, 4.0),)), [1, 2])
    for token_id in (3, 3, 40):
        table.add(token_id)
    stop = frozenset({11, 12})
    return [
        row(position=3, seed=7),
        row(position=3, seed=8, top_p=0.7),
        row(position=9, seed=9, top_k=40, temperature=0.7),
        row(temperature=0.0),
        row(position=1, seed=7, temperature=1.5, min_p=0.05),
        row(position=2, seed=7, top_p=0.9, top_k=20, min_p=0.01),
        row(table=table, temperature=0.0, num_logprobs=3),
        row(table=table, seed=3, top_p=0.9),
        row(position=1, min_tokens=2, stop_token_ids=stop, seed=3),
        row(constraint=Allowing({5, 90, 499}), temperature=0.0),
        row(constraint=Allowing({5, 90, 499, 11}), min_tokens=1, stop_token_ids=stop, seed=5, num_logprobs=0),
        row(table=table, constraint=Allowing(set(range(3, 60))), top_k=5, seed=6, num_logprobs=20),
    ]


def test_a_row_chooses_the_same_beside_any_neighbours() -> None:
    rows = _mixed_rows()
    logits = torch.randn(len(rows), 500, generator=torch.Generator().manual_seed(0))
    before = logits.clone()
    together = outcomes(logits, rows)
    alone = [outcomes(logits[i : i + 1], [rows[i]])[0] for i in range(len(rows))]
    backwards = outcomes(logits.flip(0), rows[::-1])[::-1]
    assert together == alone == backwards
    assert all(isinstance(one, Choice) for one in together)
    assert torch.equal(logits, before)
    for turn in range(1, len(rows)):
        turned = rows[turn:] + rows[:turn]
        assert outcomes(logits.roll(-turn, 0), turned) == together[turn:] + together[:turn]


def test_seed_and_position_decide() -> None:
    logits = torch.zeros(1, 1000)
    assert draws(logits, 50, seed=1) == draws(logits, 50, seed=1)
    assert draws(logits, 50, seed=1) != draws(logits, 50, seed=2)
    assert len(set(draws(logits, 50, seed=1))) > 40
    assert draws(logits, 5, seed=2**63 - 1) != draws(logits, 5, seed=-1)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", [0, 255, 256, 999])
def test_a_row_that_is_not_a_number_fails_alone(bad: float, place: int) -> None:
    logits = torch.randn(9, 1000, generator=torch.Generator().manual_seed(1))
    rows = [
        row(temperature=0.0),
        row(seed=1),
        row(seed=2, top_p=0.5),
        row(seed=3, min_p=0.1, top_k=3, num_logprobs=5),
        row(temperature=0.0, constraint=Allowing({4})),
        row(seed=4, constraint=Allowing({4, 999})),
    ]
    good = outcomes(logits[:6], rows)
    spoilt = logits[:6].repeat(2, 1)
    spoilt[6:, place] = bad
    mixed = outcomes(spoilt, rows * 2)
    assert mixed[:6] == good
    for one in mixed[6:]:
        assert isinstance(one, SequenceFailed)
        assert "not a number" in str(one)


def test_a_row_without_a_possible_token_fails_alone() -> None:
    logits = torch.randn(4, 70, generator=torch.Generator().manual_seed(2))
    logits[:, 69] = -torch.inf
    rows = [
        row(seed=1),
        row(constraint=Allowing({69})),
        row(constraint=Allowing(set())),
        row(temperature=0.0, min_tokens=1, stop_token_ids=frozenset(range(70))),
    ]
    free, *failed = outcomes(logits, rows)
    assert free == outcomes(logits[:1], rows[:1])[0]
    assert all(isinstance(one, NoTokenAllowed) for one in failed)


def test_half_precision_is_sampled_too() -> None:
    logits = torch.randn(4, 300, generator=torch.Generator().manual_seed(3)).bfloat16()
    rows = [row(temperature=0.0), row(seed=1, top_p=0.9), row(seed=2, num_logprobs=2), row(constraint=Allowing({3}))]
    assert tokens(logits, rows) == tokens(logits.float(), rows)
