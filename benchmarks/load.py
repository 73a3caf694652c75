"""Streamed chat requests, and closed-loop load made of them. Knows OpenAI's wire form, and no server by name."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import httpx
import orjson

from benchmarks.errors import RequestFailed

READ_TIMEOUT_SECONDS = 600
_DATA = "data:"
_SHOWN_CHARS = 300

ExactFields = Callable[[int], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go. `exact_fields(n)`: fields of a body with which this server says exactly n tokens."""

    url: str
    exact_fields: ExactFields


@dataclass(frozen=True, slots=True)
class Ask:
    """One greedy chat request that wants exactly `tokens` tokens."""

    model: str
    messages: tuple[Mapping[str, str], ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the answer's text, and when it came (`time.perf_counter`)."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Usage:
    """The server's own counts."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer; times in seconds."""

    ask: Ask
    started: float
    ended: float
    pieces: tuple[Piece, ...]
    usage: Usage

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def seconds(self) -> float:
        return self.ended - self.started

    @property
    def ttft(self) -> float:
        """Seconds to the first text; to the end, for an answer of tokens that have no text."""
        return (self.pieces[0].at if self.pieces else self.ended) - self.started

    @property
    def gaps(self) -> list[float]:
        """Seconds between a piece of text and the next."""
        return [later.at - earlier.at for earlier, later in pairwise(self.pieces)]


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a load: answers, a line for each failure, and the seconds from the first request to the last end."""

    answers: tuple[Answer, ...]
    failures: tuple[str, ...]
    seconds: float


def new_client() -> httpx.AsyncClient:
    """A client that waits for slow servers, opens as many connections as there are requests, and heeds no proxy."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    timeout = httpx.Timeout(READ_TIMEOUT_SECONDS, connect=30)
    return httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False)


async def stream(client: httpx.AsyncClient, target: Target, ask: Ask) -> AsyncGenerator[Piece | Usage]:
    """Send one request; its pieces of text as they come, and its usage.

    Raises RequestFailed when it is refused, breaks off, or ends with another number of tokens than it asked for.
    """
    usage: Usage | None = None
    try:
        async with client.stream("POST", f"{target.url}/v1/chat/completions", json=_body(target, ask)) as response:
            if response.status_code != 200:
                content = (await response.aread()).decode(errors="replace")
                raise RequestFailed(f"HTTP {response.status_code}: {content[:_SHOWN_CHARS]}")
            async for line in response.aiter_lines():
                event = _event(line)
                if text := _text(event):
                    yield Piece(time.perf_counter(), text)
                usage = _usage(event) or usage
    except httpx.HTTPError as error:
        raise RequestFailed(f"{type(error).__name__}: {error}") from error
    if usage is None:
        raise RequestFailed("the stream ended without usage figures")
    if usage.completion_tokens != ask.tokens:
        raise RequestFailed(f"{usage.completion_tokens} tokens came where {ask.tokens} were asked for")
    yield usage


async def send(client: httpx.AsyncClient, target: Target, ask: Ask) -> Answer:
    """Send one request and wait for its whole answer. Raises RequestFailed."""
    pieces: list[Piece] = []
    usage = Usage(0, 0, 0)
    started = time.perf_counter()
    async with aclosing(stream(client, target, ask)) as items:
        async for item in items:
            if isinstance(item, Piece):
                pieces.append(item)
            else:
                usage = item
    return Answer(ask=ask, started=started, ended=time.perf_counter(), pieces=tuple(pieces), usage=usage)


async def run_closed_loop(client: httpx.AsyncClient, target: Target, asks: Sequence[Ask], *, clients: int) -> Load:
    """Send every request, `clients` of them at a time: the next one goes out when one has ended."""
    waiting = iter(asks)
    answers: list[Answer] = []
    failures: list[str] = []

    async def one_client() -> None:
        for ask in waiting:
            try:
                answers.append(await send(client, target, ask))
            except RequestFailed as failure:
                failures.append(f"{ask.model}: {failure}")

    started = time.perf_counter()
    await asyncio.gather(*(one_client() for _ in range(clients)))
    return Load(tuple(answers), tuple(failures), time.perf_counter() - started)


def _body(target: Target, ask: Ask) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": ask.model,
        "messages": [dict(message) for message in ask.messages],
        "max_tokens": ask.tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return body | dict(target.exact_fields(ask.tokens))


def _event(line: str) -> Mapping[str, Any]:
    """The JSON of a line of server-sent events; empty for a line that carries none. Raises RequestFailed."""
    if not line.startswith(_DATA) or (data := line[len(_DATA) :].strip()) == "[DONE]":
        return {}
    try:
        event = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise RequestFailed(f"an event is not JSON: {data[:_SHOWN_CHARS]}") from None
    if not isinstance(event, dict) or event.get("error"):
        raise RequestFailed(f"the stream broke off: {data[:_SHOWN_CHARS]}")
    return event


def _text(event: Mapping[str, Any]) -> str:
    return "".join((choice.get("delta") or {}).get("content") or "" for choice in event.get("choices") or [])


def _usage(event: Mapping[str, Any]) -> Usage | None:
    usage = event.get("usage")
    if not usage:
        return None
    details = usage.get("prompt_tokens_details") or {}
    return Usage(usage["prompt_tokens"], usage["completion_tokens"], details.get("cached_tokens") or 0)
