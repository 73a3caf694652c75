"""Ten thousand registered adapters: what the start takes in time and memory, and what lists of them hold up."""

import asyncio
import gc
import os
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from adapters.store import AdapterStore
from server.collector import spare_the_collector
from tests.server.building import app_client, chat_body, soft_prompt_files, tiny_settings

NUM_ADAPTERS = 10_000
NUM_PINNED = 3


def _resident_megabytes() -> float:
    """Memory of this process that is not swapped out."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


@asynccontextmanager
async def _longest_stall(what: str) -> AsyncGenerator[None]:
    """Print how long the block took, and the longest time in it in which the event loop did nothing else."""
    stalls = [0.0]

    async def tick() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            stalls.append(time.perf_counter() - before)

    ticking = asyncio.create_task(tick())
    started = time.perf_counter()
    yield
    took = time.perf_counter() - started
    ticking.cancel()
    _say(f"{what}: {took:.2f} s, longest stall of the event loop {max(stalls) * 1000:.0f} ms")


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_ten_thousand_adapters_start_and_are_listed(
    tiny_base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Times and memory are printed, not asserted: they are the machine's."""
    store = AdapterStore(tmp_path / "store")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: None)  # the disk's own time is not what is measured here
        for number in range(NUM_ADAPTERS):
            store.publish(f"a{number}", soft_prompt_files(number, num_virtual_tokens=20))
    for number in range(NUM_PINNED):
        store.pin(f"a{number}", pinned=True)
    request.addfinalizer(gc.unfreeze)
    settings = tiny_settings(tiny_base, tmp_path / "store")
    before = _resident_megabytes()
    started = time.perf_counter()
    async with app_client(settings) as (running, client):
        with capsys.disabled():
            spare_the_collector()  # as `hotprompt serve` does
            _say(f"\nstart: {time.perf_counter() - started:.2f} s, {_resident_megabytes() - before:.0f} MB")
            assert running.engine.stats().num_finished == NUM_PINNED
            for route, num_entries in (("/v1/models", NUM_ADAPTERS + 1), ("/v1/adapters", NUM_ADAPTERS)) * 2:
                async with _longest_stall(f"GET {route}"):
                    answer = await client.get(route)
                assert len(answer.json()["data"]) == num_entries
            async with _longest_stall("500 requests to 500 adapters"):
                for number in range(500):
                    body = chat_body(f"a{number * 20}", max_tokens=1)
                    assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
            async with _longest_stall("DELETE of an adapter"):
                assert (await client.delete("/v1/models/a77")).status_code == 200
            _say(f"memory at the end: {_resident_megabytes() - before:.0f} MB above the start")
