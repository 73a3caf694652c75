"""Per-row sampling: every row by its own settings, and never by its neighbours."""

import torch

from server.engine.sampler import SamplingRow, sample
from server.engine.sampling_params import SamplingParams


def _row(position: int = 0, **settings: float | int | None) -> SamplingRow:
    return SamplingRow(SamplingParams(max_tokens=1, **settings), position)  # type: ignore[arg-type]


def _draws(logits: torch.Tensor, count: int, **settings: float | int | None) -> list[int]:
    return sample(logits.expand(count, -1), [_row(position=i, **settings) for i in range(count)])


def test_greedy_takes_the_most_likely_token_and_the_lowest_id_among_equals() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 2.0]])
    assert sample(logits, [_row(temperature=0.0)] * 2) == [1, 0]


def test_draws_follow_the_distribution() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    draws = _draws(probabilities.log()[None], 20_000, seed=1)
    shares = torch.bincount(torch.tensor(draws), minlength=4) / 20_000
    assert torch.allclose(shares, probabilities, atol=0.012)


def test_temperature_sharpens_and_flattens() -> None:
    logits = torch.tensor([[0.0, 1.0]])
    cold, hot = (_draws(logits, 5000, seed=1, temperature=t).count(1) / 5000 for t in (0.25, 4.0))
    assert abs(cold - 0.982) < 0.01
    assert abs(hot - 0.562) < 0.025


def test_top_k_and_top_p_leave_only_the_head() -> None:
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()[None]
    assert set(_draws(logits, 2000, top_k=2)) == {0, 1}
    assert set(_draws(logits, 2000, top_k=1)) == {0}
    assert set(_draws(logits, 2000, top_p=0.6)) == {0, 1}
    assert set(_draws(logits, 2000, top_p=0.01)) == {0}
    assert set(_draws(logits, 2000, top_k=3, top_p=0.99)) == {0, 1, 2}
    assert set(_draws(logits, 2000, top_k=1_000_000)) == {0, 1, 2, 3}


def test_a_head_longer_than_what_is_looked_at_first_is_whole() -> None:
    logits = torch.linspace(1, 0, 1000)[None]
    assert set(_draws(logits, 20_000, top_k=300, seed=1)) == set(range(300))
    longest = max(_draws(logits, 20_000, top_p=0.5, seed=1))
    order = logits[0].softmax(dim=-1).cumsum(dim=-1)
    assert longest == int((order < 0.5).sum())


def test_draws_over_a_large_vocabulary_follow_the_distribution() -> None:
    """Beyond one block of the inversion, up to the last token, and never one of no probability."""
    probabilities = torch.zeros(1000)
    probabilities[[3, 255, 256, 700, 999]] = torch.tensor([0.1, 0.2, 0.3, 0.25, 0.15])
    for settings in ({}, {"top_k": 5}, {"top_p": 0.999999}):
        draws = torch.tensor(_draws(probabilities.log()[None], 20_000, seed=2, **settings))
        shares = torch.bincount(draws, minlength=1000) / 20_000
        assert torch.allclose(shares, probabilities, atol=0.012)
        assert not shares[probabilities == 0].any()


def test_a_row_draws_the_same_beside_any_neighbours() -> None:
    logits = torch.randn(6, 500, generator=torch.Generator().manual_seed(0))
    rows = [
        _row(position=3, seed=7),
        _row(position=3, seed=8, top_p=0.7),
        _row(position=9, seed=9, top_k=40, temperature=0.7),
        _row(temperature=0.0),
        _row(position=1, seed=7, temperature=1.5),
        _row(position=2, seed=7, top_p=0.9, top_k=20),
    ]
    together = sample(logits, rows)
    alone = [sample(logits[i : i + 1], [rows[i]])[0] for i in range(6)]
    backwards = sample(logits.flip(0), rows[::-1])[::-1]
    assert together == alone == backwards


def test_seed_and_position_decide() -> None:
    logits = torch.zeros(1, 1000)
    assert _draws(logits, 50, seed=1) == _draws(logits, 50, seed=1)
    assert _draws(logits, 50, seed=1) != _draws(logits, 50, seed=2)
    assert len(set(_draws(logits, 50, seed=1))) > 40
    assert _draws(logits, 5, seed=2**63 - 1) != _draws(logits, 5, seed=-1)
