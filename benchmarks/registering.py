"""How soon a new adapter answers, and what registering many of them costs the streams that run."""

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import httpx

from adapters.files import AdapterFiles
from benchmarks.beside import BesideStreams, Window
from benchmarks.errors import RequestFailed
from benchmarks.load import Answer, send
from benchmarks.percentiles import percentiles
from benchmarks.samples import Sample, sample_of_answers
from benchmarks.session import Session

BASE, REGISTERED, BESIDE = "base", "registered and asked", "streams during registrations"
_CREATED = 201
_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Registering:
    """New adapters one by one, each asked at once; then many beside streams.

    Those come in batches, one adapter after the other, and after each batch as long a time without any.
    """

    registrations: int = 100
    batch: int = 20
    streams: int = 8
    stream_tokens: int = 512

    async def __call__(self, session: Session) -> list[Sample]:
        first_answers = await self._first_answers(session)
        beside = BesideStreams(BESIDE, self.streams, self.stream_tokens)
        return [*first_answers, *await beside.measure(session, self._batches(session))]

    async def _first_answers(self, session: Session) -> list[Sample]:
        base: list[Answer] = []
        registered: list[Answer] = []
        to_first_token: list[float] = []
        for each in range(-1, session.options.requests):
            name = f"new-{session.round}-{each + 1}"
            ask = session.ask(session.base_model, "before", each, tokens=_TOKENS)
            answer = await send(session.client, session.target, ask)
            files = session.maker.make(_seed(session, each + 1))
            started = time.perf_counter()
            await _register(session, name, files)
            first = await send(session.client, session.target, session.ask(name, "after", each, tokens=_TOKENS))
            if each < 0:
                continue  # the first of its kind warms the server
            base.append(answer)
            registered.append(first)
            to_first_token.append((first.started - started + first.ttft) * 1e3)
        sample = sample_of_answers(REGISTERED, 1, registered)
        values = {**sample.values, **percentiles("post_to_first_token", to_first_token, unit="ms")}
        raw = {**sample.raw, "post_to_first_token_ms": to_first_token}
        return [sample_of_answers(BASE, 1, base), Sample(arm=REGISTERED, clients=1, values=values, raw=raw)]

    async def _batches(self, session: Session) -> AsyncGenerator[Window]:
        for batch in range(0, self.registrations, self.batch):
            numbers = range(batch, min(batch + self.batch, self.registrations))
            many = {f"many-{session.round}-{each}": _seed(session, 100_000 + each) for each in numbers}
            files = {name: session.maker.make(seed) for name, seed in many.items()}
            started = time.perf_counter()
            for name in files:
                await _register(session, name, files[name])
            yield Window(started, time.perf_counter())


def _seed(session: Session, number: int) -> int:
    return 1_000_000 * session.round + number


async def _register(session: Session, name: str, files: AdapterFiles) -> None:
    """POST one adapter. Raises RequestFailed."""
    parts = {file_name: (file_name, content) for file_name, content in files.by_name().items()}
    try:
        response = await session.client.post(f"{session.target.url}/v1/adapters", data={"name": name}, files=parts)
    except httpx.HTTPError as error:
        raise RequestFailed(f"POST of {name}: {type(error).__name__}: {error}") from error
    if response.status_code != _CREATED:
        raise RequestFailed(f"POST of {name}: HTTP {response.status_code}: {response.text[:300]}")
