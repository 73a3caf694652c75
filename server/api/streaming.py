"""Server-sent events of one answer, whatever its chunks are. Knows no engine and no request body."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

import anyio
import orjson
from fastapi import Request
from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

from server.api.deps import Parts
from server.api.disconnect import wait_while_connected
from server.errors import error_of, log_failure
from server.protocol.errors import ErrorBody
from server.text.deltas import TextDelta, Usage

HEAD_SECONDS = 5
"""So long a stream's head waits for the first delta: what is refused until then is refused with its own status."""
PING_SECONDS = 15
SEND_TIMEOUT_SECONDS = 30

PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"


class Chunks(Protocol):
    """Writes an answer's JSON chunks."""

    def chunks(self, delta: TextDelta) -> list[bytes]:
        """The chunks of one delta."""

    def usage(self, usage: Usage) -> bytes | None:
        """The chunk after all others, if there is one."""


class Frames(Protocol):
    """Writes whole server-sent events: those before the first delta, of each delta, and after the last."""

    def begin(self) -> list[bytes]: ...

    def of(self, delta: TextDelta) -> list[bytes]: ...

    def end(self, usage: Usage) -> list[bytes]: ...


class StreamForm(Protocol):
    """The form of a stream: its frames, once the answer's fingerprint is known, and at any time its failure."""

    def frames(self, fingerprint: str) -> Frames: ...

    def failure(self, error: ErrorBody) -> list[bytes]:
        """Instead of all that would have come."""


class ChunkFrames:
    """Chunks as events without names, then [DONE]."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    def begin(self) -> list[bytes]:
        return []

    def of(self, delta: TextDelta) -> list[bytes]:
        return [_event(chunk) for chunk in self._chunks.chunks(delta)]

    def end(self, usage: Usage) -> list[bytes]:
        last = self._chunks.usage(usage)
        return [DONE] if last is None else [_event(last), DONE]


class ChunkForm:
    """Streams of chunks; after an error comes nothing more, not even [DONE]."""

    def __init__(self, chunks_of: Callable[[str], Chunks]) -> None:
        self._chunks_of = chunks_of

    def frames(self, fingerprint: str) -> Frames:
        return ChunkFrames(self._chunks_of(fingerprint))

    def failure(self, error: ErrorBody) -> list[bytes]:
        return [_event(orjson.dumps({"error": error.model_dump()}))]


class Answer:
    """An answer's deltas, asked for: the first may be there or still be made. Whoever has it must close it."""

    def __init__(self, deltas: AsyncGenerator[TextDelta]) -> None:
        self.first = asyncio.ensure_future(_next(deltas))
        self.rest = deltas

    async def aclose(self) -> None:
        """End the work, however far it has come."""
        self.first.cancel()
        await asyncio.gather(self.first, return_exceptions=True)
        await self.rest.aclose()


async def stream_response(
    deltas: AsyncGenerator[TextDelta], form: StreamForm, request: Request, parts: Parts
) -> "DeltaStreamResponse":
    """The response, once the first delta is there or HEAD_SECONDS are over.

    An error until then is raised; one that comes later is told inside the stream, which has begun with a ping.
    """
    answer = Answer(deltas)
    try:
        await wait_while_connected(request, answer.first, seconds=HEAD_SECONDS)
        if answer.first.done():
            answer.first.result()
    except BaseException:
        await answer.aclose()
        raise
    events = _events(form, answer, lambda error: error_of(request, error))
    return DeltaStreamResponse(events, answer, shutdown_grace_seconds=parts.shutdown_grace_seconds)


class DeltaStreamResponse(EventSourceResponse):
    """Streams events, and closes their answer however the stream ends, even if it never begins."""

    def __init__(self, events: AsyncGenerator[bytes], answer: Answer, *, shutdown_grace_seconds: float) -> None:
        super().__init__(
            events,
            headers={"Cache-Control": "no-cache"},
            sep="\n",
            ping=PING_SECONDS,
            send_timeout=SEND_TIMEOUT_SECONDS,
            shutdown_event=anyio.Event(),
            shutdown_grace_period=shutdown_grace_seconds,
        )
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._answer.aclose()


async def _next(deltas: AsyncGenerator[TextDelta]) -> TextDelta:
    return await anext(deltas)


async def _events(form: StreamForm, answer: Answer, told: Callable[[Exception], ErrorBody]) -> AsyncGenerator[bytes]:
    """All events, up to the answer's end or an error.

    The event loop has a turn before every event: on a connection that has gone, sending never waits, and a generator
    with ready data would hold the loop until its end.
    """
    try:
        if not answer.first.done():
            yield PING
        delta = await answer.first
        frames = form.frames(delta.fingerprint)
        for frame in frames.begin():
            await asyncio.sleep(0)
            yield frame
        while True:
            for frame in frames.of(delta):
                await asyncio.sleep(0)
                yield frame
            if delta.usage is not None:
                break
            delta = await anext(answer.rest)
    except Exception as error:
        log_failure(error)
        for frame in form.failure(told(error)):
            yield frame
        return
    for frame in frames.end(delta.usage):
        await asyncio.sleep(0)
        yield frame


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
