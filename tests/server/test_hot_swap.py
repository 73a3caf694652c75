"""Adapters swapped under running streams: nothing fails, no token is wrong, and all is freed afterwards."""

import os

import pytest

from tests.server.building import Running, wait_until_async
from tests.server.hot_swap import hot_swap

NUM_CYCLES = int(os.environ.get("HOT_SWAP_CYCLES", "1000"))


async def _swapped(live: Running, cycles: int) -> None:
    report = await hot_swap(live.url, cycles=cycles)
    assert (report.failed, report.wrong, report.cycles) == ([], [], cycles), str(report)
    assert report.answers > 3 * cycles
    engine = live.engine._engine
    await wait_until_async(lambda: not engine.has_work)
    engine.check_integrity()
    stats = engine.stats()
    assert (stats.num_free_blocks, stats.num_failed) == (stats.num_blocks, 0)
    registry = live.services.registry
    assert (registry.num_bytes, registry.store.names()) == (0, [])
    assert list(registry.store.path_of("x").parent.iterdir()) == []


async def test_adapters_are_swapped_under_running_streams(live: Running) -> None:
    await _swapped(live, 12)


@pytest.mark.slow
@pytest.mark.timeout(max(300, NUM_CYCLES))
async def test_adapters_are_swapped_a_thousand_times(live: Running) -> None:
    await _swapped(live, NUM_CYCLES)
