"""Streams in which nothing happens, or that nobody reads: a sign of life for the one, an end for the other."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Message

from server.api import event_stream, streaming
from server.api.chunks import ChunkHead, ChunkWriter
from server.api.response_stream import ResponseForm
from server.api.response_writing import ResponseWriter
from server.api.streaming import ChunkForm, StreamForm, stream_response
from server.engine import stream
from server.engine.errors import EngineDead
from server.engine.outputs import FinishReason
from server.protocol.responses import ResponsesRequest
from server.serve import open_listener
from server.text.deltas import TextDelta, Usage
from tests.server import building
from tests.server.building import chat_body, events_of, live_server, tiny_settings, wait_until_async

SCOPE: dict[str, Any] = {"type": "http", "method": "POST"}
HEAD = ChunkHead(id="x", created=1, model="m", include_usage=False, include_logprobs=False)
LAST = TextDelta(0, "", "fp", finish_reason=FinishReason.STOP, usage=Usage(1, 2, 0))


class Answer:
    """Deltas, as many as asked for and the last, and whether their generator was closed. It may fail instead."""

    def __init__(self, num_deltas: int, *, pause: float, fails: bool = False) -> None:
        self._num_deltas = num_deltas
        self._pause = pause
        self._fails = fails
        self.closed = False

    async def deltas(self) -> AsyncGenerator[TextDelta]:
        try:
            for _ in range(self._num_deltas):
                await asyncio.sleep(self._pause)
                yield TextDelta(0, "more", "fp")
            await asyncio.sleep(self._pause)
            if self._fails:
                raise EngineDead("gone")
            yield LAST
        finally:
            self.closed = True


def chat_form() -> StreamForm:
    return ChunkForm(partial(ChunkWriter, HEAD))


def response_form() -> StreamForm:
    return ResponseForm(ResponseWriter(ResponsesRequest.model_validate({"model": "m", "input": "hello"})))


async def sent_of(answer: Answer, form: StreamForm, send: Callable[[Message], Any] | None = None) -> list[Message]:
    """The messages of an answer's stream to a client that stays."""
    sent: list[Message] = []

    async def collect(message: Message) -> None:
        sent.append(message)
        if send is not None:
            await send(message)

    response = await stream_response(answer.deltas(), form, Request(SCOPE, _stays))
    await response(SCOPE, _stays, collect)
    return sent


def body_of(sent: list[Message]) -> str:
    return b"".join(message.get("body", b"") for message in sent).decode()


async def _stays() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("nobody hangs up")


async def test_a_stream_that_waits_gives_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "PING_SECONDS", 0.05)
    answer = Answer(2, pause=0.3)
    body = body_of(await sent_of(answer, chat_form()))
    assert body.endswith("data: [DONE]\n\n")
    between = body.split('"content":"more"')[1]
    assert "\n: ping" in between
    events = [event for event in body.split("\n\n") if event.startswith("data: ")]
    assert len(events) == 5  # role, more, more, finish, [DONE]: pings are none
    assert answer.closed


async def test_the_head_and_signs_of_life_come_before_a_late_first_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streaming, "HEAD_SECONDS", 0.05)
    monkeypatch.setattr(event_stream, "PING_SECONDS", 0.05)
    for form in (chat_form(), response_form()):
        sent = await sent_of(Answer(1, pause=0.3), form)
        assert sent[0]["status"] == 200
        before, _, _ = body_of(sent).partition("more")
        assert before.startswith(": ping\n\n")
        assert before.count(": ping") >= 3


async def test_an_early_error_keeps_its_status_and_a_late_one_is_told_inside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for form in (chat_form(), response_form()):
        early = Answer(0, pause=0, fails=True)
        with pytest.raises(EngineDead):
            await sent_of(early, form)
        assert early.closed
    monkeypatch.setattr(streaming, "HEAD_SECONDS", 0.05)
    chat = body_of(await sent_of(Answer(0, pause=0.1, fails=True), chat_form()))
    assert [event["error"]["code"] for event in events_of(chat)] == ["engine_dead"]
    response = body_of(await sent_of(Answer(0, pause=0.1, fails=True), response_form()))
    assert [event["type"] for event in events_of(response)] == [
        "response.created",
        "response.in_progress",
        "response.failed",
    ]


async def test_a_client_that_hangs_up_before_the_head_ends_the_work() -> None:
    answer = Answer(1, pause=30)

    async def leaves() -> Message:
        await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        await stream_response(answer.deltas(), chat_form(), Request(SCOPE, leaves))
    assert answer.closed


async def test_a_stream_in_the_queue_has_its_head_and_hears_of_a_stop_inside(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "HEAD_SECONDS", 0.05)
    body = chat_body("tiny-llama", stream=True, ignore_eos=True, max_tokens=900)
    with live_server(tiny_settings(tiny_base, tmp_path / "store", max_num_seqs=1)) as (running, _):
        async with httpx.AsyncClient(base_url=running.url, timeout=30) as client:
            first = asyncio.create_task(client.post("/v1/chat/completions", json=body))
            await wait_until_async(lambda: running.engine.stats().num_running == 1)
            async with client.stream("POST", "/v1/chat/completions", json=body) as second:
                assert second.status_code == 200
                lines = second.aiter_lines()
                assert await anext(lines) == ": ping"
                assert running.engine.stats().num_waiting == 1
                await running.engine.stop(grace_seconds=0)
                rest = "\n".join([line async for line in lines])
            (event,) = events_of(rest)
            assert event["error"]["code"] == "server_stopping"
            assert events_of((await first).text)[-1]["error"]["code"] == "server_stopping"


async def test_a_client_that_does_not_read_is_cut_off_and_its_work_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_stream, "SEND_TIMEOUT_SECONDS", 0.1)
    answer = Answer(1_000_000, pause=0)
    num_sent = 0

    async def send(_: Message) -> None:
        nonlocal num_sent
        num_sent += 1
        if num_sent > 5:  # its buffers are full
            await asyncio.Event().wait()

    async with asyncio.timeout(5):
        with pytest.raises(BaseException) as ended:  # noqa: PT011
            await sent_of(answer, chat_form(), send)
    assert "SendTimeoutError" in repr(ended.value)
    assert answer.closed


def small_listener(host: str, port: int) -> socket.socket:
    """A listener whose connections hold little: they take the size of its buffers over."""
    listener = open_listener(host, port)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return listener


async def test_an_answer_that_nobody_reads_is_aborted_before_its_send_times_out(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MAX_UNREAD_TOKENS", 50)
    monkeypatch.setattr(building, "open_listener", small_listener)
    body = chat_body("tiny-llama", stream=True, ignore_eos=True, max_tokens=990)
    with live_server(tiny_settings(tiny_base, tmp_path / "store")) as (running, _):
        free = running.engine.stats().num_free_blocks
        async with httpx.AsyncClient(base_url=running.url, timeout=30) as client:
            with stalled_client(running.url, body) as connection:
                beside = await client.post("/v1/chat/completions", json=body | {"max_tokens": 100})
                assert events_of(beside.text)[-1] == "[DONE]"
                await wait_until_async(lambda: running.engine.stats().num_aborted == 1, seconds=10)
                stats = running.engine.stats()
                assert (stats.num_running, stats.num_free_blocks) == (0, free)
                rest = await asyncio.to_thread(lambda: connection.makefile("rb").read().decode())
            assert '"code":"reader_stalled"' in rest
            assert "[DONE]" not in rest


@contextmanager
def stalled_client(url: str, body: dict[str, Any]) -> Iterator[socket.socket]:
    """A connection that has sent a request, and reads nothing by itself."""
    host, port = url.removeprefix("http://").split(":")
    content = json.dumps(body).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(30)
        connection.connect((host, int(port)))
        connection.sendall(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
        yield connection
