"""What a scrape takes: with a thousand adapters at most 20 ms of CPU."""

from pathlib import Path

import pytest

from benchmarks.scrape import measure_scrape

MOST_MS = 20


def test_scrapes_are_measured_with_every_adapter_in_use(tiny_base: Path) -> None:
    cost = measure_scrape(str(tiny_base), home=tiny_base, adapters=5, scrapes=2)
    assert cost.num_bytes > 5000
    assert 0 < cost.request_ms <= cost.longest_request_ms
    assert 0 < cost.busy_page_ms <= cost.longest_busy_page_ms


@pytest.mark.slow
def test_a_scrape_with_a_thousand_adapters_is_short(tiny_base: Path) -> None:
    cost = measure_scrape(str(tiny_base), home=tiny_base, adapters=1000, scrapes=20)
    assert cost.request_ms <= MOST_MS
    assert cost.busy_page_ms <= MOST_MS
