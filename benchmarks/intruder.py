"""How long running streams wait for their next token while a long prompt arrives beside them."""

import asyncio
import time
from dataclasses import dataclass

from benchmarks.load import send
from benchmarks.samples import Sample, sample_of_gaps
from benchmarks.session import Session
from benchmarks.streams import running_streams

ALONE, BESIDE = "streams alone", "streams beside a long prompt"


@dataclass(frozen=True, slots=True)
class Intruder:
    """Streams on the base model; a long prompt comes, then as long a time without one, and so on in turn.

    A window lasts from the sending of the prompt to its first token, which is its only one.
    """

    prompt_tokens: int = 4_000
    streams: int = 8
    stream_tokens: int = 512
    prompts: int = 3

    async def __call__(self, session: Session) -> list[Sample]:
        beside: list[float] = []
        alone: list[float] = []
        base = session.base_model
        async with running_streams(
            session.client,
            session.target,
            lambda each: session.ask(base, "stream", each, tokens=self.stream_tokens),
            number=self.streams,
        ) as streams:
            for each in range(self.prompts):
                ask = session.ask(base, "intruder", each, tokens=1, prompt_tokens=self.prompt_tokens)
                answer = await send(session.client, session.target, ask)
                await streams.wait_beyond(answer.ended)
                beside += streams.gaps_between(answer.started, answer.ended)
                started = time.perf_counter()
                await asyncio.sleep(answer.seconds)
                ended = time.perf_counter()
                await streams.wait_beyond(ended)
                alone += streams.gaps_between(started, ended)
        failures = tuple(streams.failures)
        return [
            sample_of_gaps(ALONE, self.streams, alone, failures=failures),
            sample_of_gaps(BESIDE, self.streams, beside, failures=failures),
        ]
