"""Percentiles and medians of measured values. Knows no unit."""

from collections.abc import Mapping, Sequence
from math import ceil
from statistics import median

__all__ = ["median", "percentile", "percentiles"]

REPORTED = (50, 95, 99)


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank: the smallest value that at least `percent` of all values do not exceed.

    Raises ValueError without values, or for a percent outside (0, 100].
    """
    if not values or not 0 < percent <= 100:
        raise ValueError(f"no percentile {percent} of {len(values)} values")
    return sorted(values)[ceil(len(values) * percent / 100) - 1]


def percentiles(name: str, values: Sequence[float], *, unit: str) -> Mapping[str, float]:
    """p50, p95 and p99 under names such as `ttft_p50_ms`; nothing where nothing was measured."""
    if not values:
        return {}
    return {f"{name}_p{percent}_{unit}": percentile(values, percent) for percent in REPORTED}
