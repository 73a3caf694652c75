"""The laws of random choices: draws follow each setting's definition, alone and together, on either path."""

from functools import partial

import numpy as np
import pytest
import torch

from server.engine.drawing import _draw_from_short_head, _draw_from_sorted, _first_beyond, draw
from server.engine.sampling_params import SamplingParams
from tests.engine.rows import chi_square_p, draws, law, row

SMALL = 2 * torch.randn(60, generator=torch.Generator().manual_seed(1))
LARGE = torch.randn(3000, generator=torch.Generator().manual_seed(2))
"""Flat enough for a head of more tokens than are looked at first."""

Params = partial(SamplingParams, max_tokens=1)
LAWS = {
    "plain": Params(seed=1),
    "cold": Params(seed=2, temperature=0.5),
    "hot": Params(seed=3, temperature=1.7),
    "top-p": Params(seed=4, top_p=0.8),
    "top-k": Params(seed=5, top_k=7),
    "min-p": Params(seed=6, min_p=0.1),
    "cold top-p": Params(seed=7, temperature=0.6, top_p=0.9),
    "top-k and top-p": Params(seed=8, top_k=9, top_p=0.75),
    "min-p and top-k": Params(seed=9, min_p=0.02, top_k=6),
    "min-p and top-p": Params(seed=10, min_p=0.08, top_p=0.85),
    "all": Params(seed=11, temperature=1.3, min_p=0.05, top_k=8, top_p=0.9),
}
LONG_LAWS = {
    "plain": Params(seed=1),
    "top-p": Params(seed=2, top_p=0.6),
    "top-p to the end": Params(seed=3, top_p=0.999),
    "top-k and top-p": Params(seed=4, top_k=500, top_p=0.6),
    "top-k beyond": Params(seed=5, top_k=2500, top_p=0.95),
    "min-p and top-p": Params(seed=6, min_p=0.05, top_p=0.7),
    "all": Params(seed=7, temperature=1.4, min_p=0.01, top_k=900, top_p=0.8),
}


def _drawn(logits: torch.Tensor, params: SamplingParams, count: int) -> list[int]:
    return draws(
        logits[None],
        count,
        seed=params.seed,
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        min_p=params.min_p,
    )


@pytest.mark.parametrize("name", list(LAWS))
def test_draws_follow_their_law(name: str) -> None:
    params = LAWS[name]
    assert chi_square_p(_drawn(SMALL, params, 20_000), law(SMALL.double().numpy(), params)) > 0.001


@pytest.mark.parametrize("name", list(LONG_LAWS))
def test_draws_from_long_heads_follow_their_law(name: str) -> None:
    params = LONG_LAWS[name]
    assert chi_square_p(_drawn(LARGE, params, 10_000), law(LARGE.double().numpy(), params)) > 0.001


def test_the_laws_can_be_told_apart() -> None:
    """What the tests above rest on: the same draws do not pass for those of another law."""
    drawn = _drawn(SMALL, LAWS["top-k and top-p"], 20_000)
    for name in LAWS.keys() - {"top-k and top-p"}:
        assert chi_square_p(drawn, law(SMALL.double().numpy(), LAWS[name])) < 1e-6


@pytest.mark.parametrize("logits", [SMALL, LARGE], ids=["small", "large"])
def test_both_ways_to_find_the_head_draw_the_same(logits: torch.Tensor) -> None:
    """What a CUDA device does is right where the CPU's way is."""
    count = 300
    generator = torch.Generator().manual_seed(3)
    probabilities = (logits / (0.3 + torch.rand(count, 1, generator=generator))).softmax(dim=-1)
    uniforms = torch.rand(count, dtype=torch.float64, generator=generator)
    limits = torch.randint(1, len(logits) + 1, (count,), generator=generator)
    limits[::3] = len(logits)
    shares = torch.rand(count, generator=generator).clamp(min=0.01)
    shares[::4] = 1
    short = _draw_from_short_head(probabilities, uniforms, limits, shares)
    assert (short == _draw_from_sorted(probabilities, uniforms, limits, shares)).float().mean() > 0.99  # but for ties


def test_a_number_at_the_very_end_points_to_the_last_possible_token() -> None:
    ends = torch.tensor([[0.0, 0.25, 0.25, 1.0, 1.0], [0.0, 0.25, 0.25, 1.0, 1.0], [0.0, 0.25, 0.25, 1.0, 1.0]])
    targets = torch.tensor([0.0, 1.0, 1.5])
    assert _first_beyond(ends, targets).tolist() == [1, 3, 3]


def test_rows_that_use_min_p_and_rows_that_do_not_are_drawn_together() -> None:
    rows = [row(position=i, seed=5, min_p=0.2 * (i % 2), top_k=3 if i % 3 == 0 else None) for i in range(60)]
    together = draw(SMALL.expand(60, -1), rows)
    alone = torch.cat([draw(SMALL[None], [one]) for one in rows])
    assert torch.equal(together, alone)
    kept = np.flatnonzero(law(SMALL.double().numpy(), Params(min_p=0.2)))
    assert set(together[1::2].tolist()) <= set(kept.tolist())
