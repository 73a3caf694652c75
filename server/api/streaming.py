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
from server.api.disconnect import unless_disconnected
from server.errors import error_body, log_failure
from server.text.deltas import TextDelta, Usage

PING_SECONDS = 15
SEND_TIMEOUT_SECONDS = 30

DONE = b"data: [DONE]\n\n"


class Chunks(Protocol):
    """Writes an answer's JSON chunks."""

    def chunks(self, delta: TextDelta) -> list[bytes]:
        """The chunks of one delta."""

    def usage(self, usage: Usage) -> bytes | None:
        """The chunk after all others, if there is one."""


class Frames(Protocol):
    """Writes whole server-sent events: those before the first delta, of each delta, after the last, or of an error."""

    def begin(self) -> list[bytes]: ...

    def of(self, delta: TextDelta) -> list[bytes]: ...

    def end(self, usage: Usage) -> list[bytes]: ...

    def failure(self, error: Exception) -> list[bytes]: ...


class ChunkFrames:
    """Chunks as events without names, then [DONE]; after an error nothing more, not even [DONE]."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    def begin(self) -> list[bytes]:
        return []

    def of(self, delta: TextDelta) -> list[bytes]:
        return [_event(chunk) for chunk in self._chunks.chunks(delta)]

    def end(self, usage: Usage) -> list[bytes]:
        last = self._chunks.usage(usage)
        return [DONE] if last is None else [_event(last), DONE]

    def failure(self, error: Exception) -> list[bytes]:
        return [_event(orjson.dumps(error_body(error).model_dump()))]


async def stream_response(
    deltas: AsyncGenerator[TextDelta], chunks_of: Callable[[str], Chunks], request: Request, parts: Parts
) -> "DeltaStreamResponse":
    """As `stream_frames`, of JSON chunks. `chunks_of` is given the answer's fingerprint."""
    return await stream_frames(deltas, lambda fingerprint: ChunkFrames(chunks_of(fingerprint)), request, parts)


async def stream_frames(
    deltas: AsyncGenerator[TextDelta], frames_of: Callable[[str], Frames], request: Request, parts: Parts
) -> "DeltaStreamResponse":
    """The response, once the first delta is there: until then, what is refused is refused with its own status.

    `frames_of` is given the answer's fingerprint.
    """
    try:
        first = await unless_disconnected(request, _next(deltas))
    except BaseException:
        await deltas.aclose()
        raise
    frames = frames_of(first.fingerprint)
    return DeltaStreamResponse(frames, first, deltas, shutdown_grace_seconds=parts.shutdown_grace_seconds)


class DeltaStreamResponse(EventSourceResponse):
    """Streams deltas, and closes their generator however the stream ends, even if it never begins."""

    def __init__(
        self, frames: Frames, first: TextDelta, rest: AsyncGenerator[TextDelta], *, shutdown_grace_seconds: float
    ) -> None:
        super().__init__(
            _events(frames, first, rest),
            headers={"Cache-Control": "no-cache"},
            sep="\n",
            ping=PING_SECONDS,
            send_timeout=SEND_TIMEOUT_SECONDS,
            shutdown_event=anyio.Event(),
            shutdown_grace_period=shutdown_grace_seconds,
        )
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._rest.aclose()


async def _next(deltas: AsyncGenerator[TextDelta]) -> TextDelta:
    return await anext(deltas)


async def _events(frames: Frames, first: TextDelta, rest: AsyncGenerator[TextDelta]) -> AsyncGenerator[bytes]:
    """All events, up to the answer's end or an error.

    The event loop has a turn before every event: on a connection that has gone, sending never waits, and a generator
    with ready data would hold the loop until its end.
    """
    delta = first
    try:
        for frame in frames.begin():
            await asyncio.sleep(0)
            yield frame
        while True:
            for frame in frames.of(delta):
                await asyncio.sleep(0)
                yield frame
            if delta.usage is not None:
                break
            delta = await anext(rest)
    except Exception as error:
        log_failure(error)
        for frame in frames.failure(error):
            yield frame
        return
    for frame in frames.end(delta.usage):
        await asyncio.sleep(0)
        yield frame


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
