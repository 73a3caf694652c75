"""Measures over rows and over any resampling of them, with bootstrap intervals. Knows no model and no text library."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
Rows = NDArray[np.intp]
Measure = Callable[[Rows], float]
"""From the numbers of rows, which may repeat, to one number."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A measured value, and the middle 95 % of what it is over resampled rows."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Pair:
    """One measure of the base model and of the adapter, and their difference over the same resampled rows."""

    base: Interval | None
    adapter: Interval
    difference: Interval | None


def mean_of(values: NDArray[np.float64]) -> Measure:
    return lambda rows: float(values[rows].mean())


def loss_of(totals: NDArray[np.float64], tokens: NDArray[np.float64]) -> Measure:
    """Nats per answer token: long answers weigh more than short ones."""
    return lambda rows: float(totals[rows].sum() / tokens[rows].sum())


def perplexity_of(loss: Measure) -> Measure:
    return lambda rows: float(np.exp(min(loss(rows), 700.0)))


def macro_f1_of(expected: Rows, given: Rows, num_labels: int) -> Measure:
    """Mean over labels of 2 tp / (2 tp + fp + fn), over those that are expected or given; `num_labels` is no label."""
    return lambda rows: _macro_f1(confusion(expected[rows], given[rows], num_labels))


def confusion(expected: Rows, given: Rows, num_labels: int) -> Rows:
    """Counts `[expected, given]`; the last column is of answers that name no label."""
    cells = np.bincount(expected * (num_labels + 1) + given, minlength=num_labels * (num_labels + 1))
    return cells.reshape(num_labels, num_labels + 1).astype(np.intp)


def compare(
    base: Mapping[str, Measure] | None, adapter: Mapping[str, Measure], *, num_rows: int, seed: int
) -> dict[str, Pair]:
    """Every measure of the adapter, beside the base's where there is one. Both see the same resampled rows.

    The interval is the percentile bootstrap's (Efron 1979), of 1,000 resamples.
    """
    everything = np.arange(num_rows)
    draws = np.random.default_rng(seed).integers(0, num_rows, (RESAMPLES, num_rows))
    pairs = {}
    for name, measure in adapter.items():
        value, drawn = measure(everything), _over(measure, draws)
        other = base.get(name) if base is not None else None
        if other is None:
            pairs[name] = Pair(None, _interval(value, drawn), None)
            continue
        base_value, base_drawn = other(everything), _over(other, draws)
        pairs[name] = Pair(
            _interval(base_value, base_drawn),
            _interval(value, drawn),
            _interval(value - base_value, drawn - base_drawn),
        )
    return pairs


def _over(measure: Measure, draws: Rows) -> NDArray[np.float64]:
    return np.array([measure(rows) for rows in draws])


def _interval(value: float, drawn: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def _macro_f1(counts: Rows) -> float:
    hits = counts.diagonal()
    either = counts.sum(axis=1) + counts[:, :-1].sum(axis=0)
    return float((2 * hits[either > 0] / either[either > 0]).mean())
