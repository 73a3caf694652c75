"""What a scrape takes: with a thousand adapters at most 20 ms of CPU."""

from pathlib import Path

import pytest

from benchmarks.scrape import measure_scrape

MOST_MS = 20


def test_scrapes_are_measured_with_every_adapter_in_use(tiny_base: Path) -> None:
    cost = measure_scrape(str(tiny_base), home=tiny_base, adapters=5, scrapes=2)
    assert cost.num_bytes > 5000
    for took in (cost.request, cost.busy_page):
        assert 0 < took.median <= took.p99 <= took.longest


@pytest.mark.slow
def test_a_scrape_with_a_thousand_adapters_is_short(tiny_base: Path) -> None:
    cost = measure_scrape(str(tiny_base), home=tiny_base, adapters=1000, scrapes=20)
    assert cost.request.median <= MOST_MS
    assert cost.busy_page.median <= MOST_MS
