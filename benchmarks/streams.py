"""Streams that run on while something else is done to their server, and how long they were kept waiting."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from itertools import count, pairwise

import httpx

from benchmarks.errors import RequestFailed
from benchmarks.load import Ask, Piece, Target, stream

_POLL_SECONDS = 0.005
_PATIENCE_SECONDS = 300

WriteAsk = Callable[[int], Ask]


class Streams:
    """Clients that ask again when their answer has ended, until the block that opened them is left."""

    def __init__(self, number: int) -> None:
        self.failures: list[str] = []
        self._answers: list[list[list[float]]] = [[] for _ in range(number)]  # by client: the stamps of each answer

    def gaps_between(self, start: float, end: float) -> list[float]:
        """Every wait for a next piece, in seconds, that began before `end` and ended after `start`.

        So a wait that outlasts the window counts whole: call this after `wait_beyond(end)`.
        """
        answers = [stamps for client in self._answers for stamps in client]
        pairs = [pair for stamps in answers for pair in pairwise(stamps)]
        return [later - earlier for earlier, later in pairs if earlier <= end and later >= start]

    async def wait_beyond(self, moment: float) -> None:
        """Wait until every client has got a piece after a moment. Raises RequestFailed when one never does."""
        deadline = time.perf_counter() + _PATIENCE_SECONDS
        while not all(client and client[-1] and client[-1][-1] > moment for client in self._answers):
            if self.failures:
                return
            if time.perf_counter() > deadline:
                raise RequestFailed(f"a stream stood still for {_PATIENCE_SECONDS} s")
            await asyncio.sleep(_POLL_SECONDS)

    async def run_one(self, number: int, client: httpx.AsyncClient, target: Target, asks: Iterator[Ask]) -> None:
        """One client's answers, one after the other; ends at the first failure."""
        for ask in asks:
            stamps: list[float] = []
            self._answers[number].append(stamps)
            try:
                async with aclosing(stream(client, target, ask)) as items:
                    async for item in items:
                        if isinstance(item, Piece):
                            stamps.append(item.at)
            except RequestFailed as failure:
                self.failures.append(f"{ask.model}: {failure}")
                return


@asynccontextmanager
async def running_streams(
    client: httpx.AsyncClient, target: Target, write_ask: WriteAsk, *, number: int
) -> AsyncIterator[Streams]:
    """Streams that all have begun to speak; they are hung up when the block is left."""
    streams = Streams(number)
    asks = (write_ask(each) for each in count())
    tasks = [asyncio.create_task(streams.run_one(each, client, target, asks)) for each in range(number)]
    try:
        await streams.wait_beyond(0)
        yield streams
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end
