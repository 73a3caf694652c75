"""Percentiles by nearest rank, against values that can be counted off by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.percentiles import percentile, percentiles


def test_the_nearest_rank_of_a_hundred_values() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (1, 50, 95, 99, 100)] == [1, 50, 95, 99, 100]


@pytest.mark.parametrize(("percent", "expected"), [(1, 1.0), (25, 1.0), (26, 2.0), (50, 2.0), (75, 3.0), (99, 9.0)])
def test_few_values_give_one_of_themselves(percent: float, expected: float) -> None:
    assert percentile([9.0, 1.0, 3.0, 2.0], percent) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 100))
def test_so_many_percent_do_not_exceed_it_and_fewer_would_not_do(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    assert sum(value <= found for value in values) >= len(values) * percent / 100
    assert sum(value < found for value in values) < len(values) * percent / 100


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], 0), ([1.0], 101)])
def test_what_has_no_percentile(values: list[float], percent: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, percent)


def test_names_carry_percent_and_unit() -> None:
    assert percentiles("ttft", [3.0, 1.0, 2.0], unit="ms") == {"ttft_p50_ms": 2, "ttft_p95_ms": 3, "ttft_p99_ms": 3}
    assert percentiles("ttft", [], unit="ms") == {}
