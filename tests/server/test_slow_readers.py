"""Streams in which nothing happens, or that nobody reads: a sign of life for the one, an end for the other."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from starlette.types import Message

from server.api import streaming
from server.api.chunks import ChunkHead, ChunkWriter
from server.api.streaming import ChunkFrames, DeltaStreamResponse
from server.engine.outputs import FinishReason
from server.text.deltas import TextDelta, Usage

SCOPE = {"type": "http", "method": "POST"}
HEAD = ChunkHead(id="x", created=1, model="m", include_usage=False, include_logprobs=False)
LAST = TextDelta(0, "", "fp", finish_reason=FinishReason.STOP, usage=Usage(1, 2, 0))


class Answer:
    """Deltas after the first one, and whether their generator was closed."""

    def __init__(self, num_deltas: int, *, pause: float) -> None:
        self._num_deltas = num_deltas
        self._pause = pause
        self.closed = False

    async def deltas(self) -> AsyncGenerator[TextDelta]:
        try:
            for _ in range(self._num_deltas):
                await asyncio.sleep(self._pause)
                yield TextDelta(0, "more", "fp")
            await asyncio.sleep(self._pause)
            yield LAST
        finally:
            self.closed = True


def response_of(answer: Answer) -> DeltaStreamResponse:
    frames = ChunkFrames(ChunkWriter(HEAD, "fp"))
    return DeltaStreamResponse(frames, TextDelta(0, "first", "fp"), answer.deltas(), shutdown_grace_seconds=1)


async def _stays() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("nobody hangs up")


async def test_a_stream_that_waits_gives_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "PING_SECONDS", 0.05)
    answer = Answer(1, pause=0.3)
    sent: list[bytes] = []

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))

    await response_of(answer)(SCOPE, _stays, send)
    body = b"".join(sent)
    assert body.endswith(b"data: [DONE]\n\n")
    before, _, _ = body.partition(b'"content":"more"')
    assert b"\n: ping" in before
    events = [event for event in body.split(b"\n\n") if event.startswith(b"data: ")]
    assert len(events) == 5  # role, first, more, finish, [DONE]: pings are none
    assert answer.closed


async def test_a_client_that_does_not_read_is_cut_off_and_its_work_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "SEND_TIMEOUT_SECONDS", 0.1)
    answer = Answer(1_000_000, pause=0)
    num_sent = 0

    async def send(_: Message) -> None:
        nonlocal num_sent
        num_sent += 1
        if num_sent > 5:  # its buffers are full
            await asyncio.Event().wait()

    async with asyncio.timeout(5):
        with pytest.raises(BaseException) as ended:  # noqa: PT011
            await response_of(answer)(SCOPE, _stays, send)
    assert "SendTimeoutError" in repr(ended.value)
    assert answer.closed
