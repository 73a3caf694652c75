"""What one scrape of /metrics takes with many adapters, in CPU time of a real app over a scripted engine.

Knows no model. CPU time, so that other programs on the machine do not count. The garbage collector runs as in a server.
"""

import asyncio
import gc
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx

from adapters.base_model import open_base_model
from benchmarks.percentiles import median, percentile
from benchmarks.random_adapters import SoftPromptMaker, publish_soft_prompts
from benchmarks.scripted_engine import scripted_services
from server.app import create_app
from server.collector import spare_the_collector
from server.config import Settings
from server.keys import Caller, Role

_Page = Callable[[], bytes]

_CALLER = Caller(name="bench", role=Role.ADMIN, digest=b"")
_STEP_SECONDS = 0.05
_VIRTUAL_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds."""

    median: float
    p99: float
    longest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(median(values), percentile(values, 99), max(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapeCost:
    """CPU time: of a whole request without a socket, the app's first among them, and of the page alone while every
    adapter is in use.
    """

    adapters: int
    num_bytes: int
    request: Spread
    busy_page: Spread


def measure_scrape(base_name: str, *, home: Path, adapters: int, scrapes: int) -> ScrapeCost:
    """Publish so many adapters, use each once, and scrape. Raises BaseModelError."""
    return asyncio.run(_measure(base_name, home, adapters, scrapes))


@contextmanager
def _spared_collector() -> Iterator[None]:
    """Inside, the collector leaves alone what is there already, as in `hotprompt serve`."""
    thresholds = gc.get_threshold()
    spare_the_collector()
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


async def _measure(base_name: str, home: Path, adapters: int, scrapes: int) -> ScrapeCost:
    async with _app(base_name, home, adapters) as (client, names, page):
        with _spared_collector():
            await asyncio.gather(*(_ask(client, name, max_tokens=1) for name in names))
            requests = [await _cpu_ms_of_request(client) for _ in range(scrapes)]
        size = len(page())
        running = [asyncio.create_task(_ask(client, name, max_tokens=900)) for name in names]
        while b"hotprompt_requests_in_flight %.1f\n" % adapters not in page():
            await asyncio.sleep(_STEP_SECONDS)
        with _spared_collector():
            busy = [_cpu_ms(page) for _ in range(scrapes)]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return ScrapeCost(adapters=adapters, num_bytes=size, request=Spread.of(requests), busy_page=Spread.of(busy))


@asynccontextmanager
async def _app(
    base_name: str, home: Path, adapters: int
) -> AsyncGenerator[tuple[httpx.AsyncClient, tuple[str, ...], _Page]]:
    base = open_base_model(base_name, home=home)
    names = tuple(f"adapter-{number:04d}" for number in range(adapters))
    with tempfile.TemporaryDirectory() as store:
        services = scripted_services(base, Path(store), max_num_seqs=adapters, step_seconds=_STEP_SECONDS)
        maker = SoftPromptMaker(hidden_size=base.identity.hidden_size, virtual_tokens=_VIRTUAL_TOKENS)
        publish_soft_prompts(services.registry.store, maker, names)
        settings = Settings(base=base_name, store=Path(store), max_num_seqs=adapters, max_num_batched_tokens=8192)
        app = create_app(services, settings)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bench", timeout=None) as client,
        ):
            yield client, names, lambda: app.state.parts.metrics.text(_CALLER)


async def _ask(client: httpx.AsyncClient, model: str, *, max_tokens: int) -> None:
    body = {"model": model, "prompt": "Say it.", "max_tokens": max_tokens}
    response = await client.post("/v1/completions", json=body)
    response.raise_for_status()


async def _cpu_ms_of_request(client: httpx.AsyncClient) -> float:
    """Of the whole process: server, client and the thread that the page is made in."""
    before = time.process_time()
    (await client.get("/metrics")).raise_for_status()
    return (time.process_time() - before) * 1000


def _cpu_ms(page: _Page) -> float:
    """Of this thread alone: the engine goes on beside it."""
    before = time.thread_time()
    page()
    return (time.thread_time() - before) * 1000
