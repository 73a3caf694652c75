"""Server-sent events of one answer, whatever its chunks are. Knows no engine and no request body."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

import orjson
from fastapi import Request

from server.api.disconnect import ClientWatch
from server.api.event_stream import PING, EventStream, Write
from server.error_bodies import error_of, log_failure
from server.protocol.errors import ErrorBody
from server.text.deltas import TextDelta, Usage

HEAD_SECONDS = 5
"""So long a stream's head waits for the first delta: what is refused until then is refused with its own status."""

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
        if not self.first.done():
            self.first.cancel()
            await asyncio.gather(self.first, return_exceptions=True)
        await self.rest.aclose()


async def stream_response(deltas: AsyncGenerator[TextDelta], form: StreamForm, request: Request) -> EventStream:
    """The response, once the first delta is there or HEAD_SECONDS are over.

    An error until then is raised; one that comes later is told inside the stream, which has begun with a ping.
    """
    answer, client = Answer(deltas), ClientWatch(request)
    writer = _AnswerWriter(form, answer, lambda error: error_of(request, error))
    try:
        await client.wait_for(answer.first, seconds=HEAD_SECONDS)
        if answer.first.done():
            answer.first.result()
    except BaseException:
        await client.aclose()
        await answer.aclose()
        raise
    return EventStream(writer.write, client, close=answer.aclose)


async def _next(deltas: AsyncGenerator[TextDelta]) -> TextDelta:
    return await anext(deltas)


class _AnswerWriter:
    """Writes all events of one answer, up to its end or an error; those of one delta go together."""

    def __init__(self, form: StreamForm, answer: Answer, told: Callable[[Exception], ErrorBody]) -> None:
        self._form = form
        self._answer = answer
        self._told = told

    async def write(self, write: Write) -> None:
        """The whole stream. What `write` raises is raised; all else that goes wrong is told inside the stream."""
        if not self._answer.first.done():
            await write(PING)
        try:
            delta = await self._answer.first
            frames = self._form.frames(delta.fingerprint)
            written = [*frames.begin(), *frames.of(delta)]
        except Exception as error:
            return await self._fail(error, write)
        while delta.usage is None:
            if written:
                await write(b"".join(written))
            try:
                delta = await anext(self._answer.rest)
                written = frames.of(delta)
            except Exception as error:
                return await self._fail(error, write)
        await write(b"".join([*written, *frames.end(delta.usage)]))

    async def _fail(self, error: Exception, write: Write) -> None:
        log_failure(error)
        await write(b"".join(self._form.failure(self._told(error))))


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
