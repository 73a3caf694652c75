"""How long running streams wait for their next token beside some work, against as long a time without it, in turn."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from benchmarks.samples import Sample, sample_of_gaps
from benchmarks.session import Session
from benchmarks.streams import running_streams

ALONE = "streams alone"


@dataclass(frozen=True, slots=True)
class Window:
    """From when to when a piece of work ran beside the streams (`time.perf_counter`)."""

    started: float
    ended: float


@dataclass(frozen=True, slots=True)
class BesideStreams:
    """Streams on the base model, and what the samples of the time beside the work are called."""

    arm: str
    streams: int
    stream_tokens: int

    async def measure(self, session: Session, work: AsyncGenerator[Window]) -> list[Sample]:
        """Run `work` window by window, after each as long without any. Raises RequestFailed, and what `work` raises."""
        beside: list[float] = []
        alone: list[float] = []
        async with (
            running_streams(
                session.client,
                session.target,
                lambda each: session.ask(session.base_model, "stream", each, tokens=self.stream_tokens),
                number=self.streams,
            ) as streams,
            aclosing(work) as windows,
        ):
            async for window in windows:
                await streams.wait_beyond(window.ended)
                beside += streams.gaps_between(window.started, window.ended)
                started = time.perf_counter()
                await asyncio.sleep(window.ended - window.started)
                ended = time.perf_counter()
                await streams.wait_beyond(ended)
                alone += streams.gaps_between(started, ended)
        failures = tuple(streams.failures)
        return [
            sample_of_gaps(ALONE, self.streams, alone, failures=failures),
            sample_of_gaps(self.arm, self.streams, beside, failures=failures),
        ]
