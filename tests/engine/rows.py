"""Rows for tests of the sampler, a constraint of fixed tokens, and the law of random choices, told plainly."""

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray

from server.engine.constraint import TokenConstraint
from server.engine.errors import SequenceFailed
from server.engine.sampler import Choice, sample
from server.engine.sampling_params import SamplingParams
from server.engine.sampling_row import SamplingRow
from server.engine.token_table import TokenTable

Setting = float | int | frozenset[int] | tuple[tuple[int, float], ...] | None


class Allowing:
    """A constraint that allows the same tokens at every step."""

    def __init__(self, token_ids: Collection[int]) -> None:
        self._token_ids = token_ids

    def fill(self, mask: NDArray[np.int32]) -> None:
        bits = mask.view(np.uint32)
        for token_id in self._token_ids:
            bits[token_id // 32] |= np.uint32(1 << token_id % 32)

    def accept(self, token_id: int) -> None:
        assert token_id in self._token_ids


def row(
    position: int = 0,
    table: TokenTable | None = None,
    constraint: TokenConstraint | None = None,
    **settings: Setting,
) -> SamplingRow:
    return SamplingRow(SamplingParams(max_tokens=1, **settings), position, table, constraint)  # type: ignore[arg-type]


def outcomes(logits: torch.Tensor, rows: list[SamplingRow]) -> list[Choice | SequenceFailed]:
    with torch.inference_mode():
        return sample(logits, rows)


def choices(logits: torch.Tensor, rows: list[SamplingRow]) -> list[Choice]:
    """What is chosen for rows of which none fails."""
    made = outcomes(logits, rows)
    failed = [one for one in made if isinstance(one, SequenceFailed)]
    assert not failed, failed
    return [one for one in made if isinstance(one, Choice)]


def tokens(logits: torch.Tensor, rows: list[SamplingRow]) -> list[int]:
    return [choice.token_id for choice in choices(logits, rows)]


def draws(logits: torch.Tensor, count: int, **settings: Setting) -> list[int]:
    """Tokens at so many positions of a sequence, all after the same logits `[1, V]`."""
    params = SamplingParams(max_tokens=1, **settings)  # type: ignore[arg-type]
    drawn: list[int] = []
    for start in range(0, count, 1000):
        positions = range(start, min(start + 1000, count))
        drawn += tokens(logits.expand(len(positions), -1), [SamplingRow(params, i) for i in positions])
    return drawn


def law(logits: NDArray[np.float64], params: SamplingParams) -> NDArray[np.float64]:
    """The probabilities `[V]` that tokens should have after logits `[V]`, from the definitions, in float64."""
    weights = np.exp((logits - logits.max()) / params.temperature)
    weights[weights < params.min_p * weights.max()] = 0
    order = np.argsort(-weights, kind="stable")
    if params.top_k is not None:
        weights[order[params.top_k :]] = 0
    likeliest_first = weights[order] / weights.sum()
    is_beyond = np.cumsum(likeliest_first) - likeliest_first >= params.top_p
    weights[order[is_beyond]] = 0
    left: NDArray[np.float64] = weights / weights.sum()
    return left


def chi_square_p(drawn: list[int], probabilities: NDArray[np.float64]) -> float:
    """How likely draws that follow the law are at least so far from it; 0 where one of no probability is drawn."""
    counts = np.bincount(drawn, minlength=len(probabilities)).astype(np.float64)
    if counts[probabilities == 0].any():
        return 0.0
    expected = probabilities * len(drawn)
    is_rare = expected < 10
    bins = [(counts[i], expected[i]) for i in np.flatnonzero(~is_rare)]
    if expected[is_rare].sum() >= 10:
        bins.append((counts[is_rare].sum(), expected[is_rare].sum()))
    statistic = sum((seen - due) ** 2 / due for seen, due in bins)
    return float(torch.special.gammaincc(torch.tensor((len(bins) - 1) / 2), torch.tensor(statistic / 2)))
