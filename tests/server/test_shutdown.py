"""The end of a server: SIGTERM lets streams finish, a second one does not; and starts that must not succeed."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.config import Settings
from server.serve import StartError, begin_to_listen, open_listener
from tests.server.building import (
    WAIT_SECONDS,
    chat_body,
    events_of,
    live_server,
    stop,
    text_of,
    tiny_settings,
    wait_until_async,
)

NUM_STREAMS = 64
START_SECONDS = 120
"""For a new process to import torch and to compile its decoder, with other tests beside it."""


async def test_told_to_end_it_finishes_streams_and_refuses_new_requests(settings: Settings) -> None:
    with live_server(settings) as (running, server):
        async with httpx.AsyncClient(base_url=running.url, timeout=60) as client:
            body = chat_body("tiny-llama", ignore_eos=True, max_tokens=700, stream=True)
            streams = [asyncio.create_task(client.post("/v1/chat/completions", json=body)) for _ in range(8)]
            while running.engine.stats().num_running < 8:
                await asyncio.sleep(0.005)
            stop(server)
            while not running.engine.is_draining:
                await asyncio.sleep(0.005)
            assert (await client.get("/ready")).status_code == 503
            assert (await client.get("/health")).status_code == 200
            refused = await client.post("/v1/chat/completions", json=chat_body("tiny-llama"))
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_stopping")
            for stream in await asyncio.gather(*streams):
                events = events_of(stream.text)
                assert events[-1] == "[DONE]"
                assert events[-2]["choices"][0]["finish_reason"] == "length"


async def test_past_the_grace_period_streams_end_with_an_error_event(tiny_base: Path, tmp_path: Path) -> None:
    with live_server(tiny_settings(tiny_base, tmp_path, shutdown_grace_seconds=0)) as (running, server):
        async with httpx.AsyncClient(base_url=running.url, timeout=60) as client:
            body = chat_body("tiny-llama", ignore_eos=True, max_tokens=900, stream=True)
            stream = asyncio.create_task(client.post("/v1/chat/completions", json=body))
            while running.engine.stats().num_running < 1:
                await asyncio.sleep(0.005)
            stop(server)
            events = events_of((await stream).text)
            assert events[-1] == "[DONE]" or events[-1]["error"]["code"] == "server_stopping"


@contextmanager
def _process(*flags: str, home: Path) -> Iterator["subprocess.Popen[str]"]:
    environment = os.environ | {"HOTPROMPT_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "hotprompt", "serve", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait_until_ready(process: "subprocess.Popen[str]", url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx.get(f"{url}/ready").status_code == 200:
                return
        except httpx.TransportError:
            assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class _Streams:
    """Streams of one server that have all begun, and of which none has ended."""

    process: "subprocess.Popen[str]"
    client: httpx.AsyncClient
    texts: list[asyncio.Task[str]]

    async def end(self) -> list[list[Any]]:
        """The events of each, when the server has ended orderly."""
        events = [events_of(text) for text in await asyncio.gather(*self.texts)]
        assert await asyncio.to_thread(self.process.wait, WAIT_SECONDS) == 0
        return events


@asynccontextmanager
async def _streaming(base: Path, home: Path, *, max_tokens: int) -> AsyncGenerator[_Streams]:
    """A server process with NUM_STREAMS streams."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    body = chat_body("tiny-llama", ignore_eos=True, max_tokens=max_tokens, stream=True)
    begun = asyncio.Semaphore(0)

    async def stream(client: httpx.AsyncClient) -> str:
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            pieces = answer.aiter_bytes()
            first = await anext(pieces)
            begun.release()
            return b"".join([first, *[piece async for piece in pieces]]).decode()

    flags = ("--base", str(base), "--port", str(port), "--dtype", "float32", "--shutdown-grace-seconds", "120")
    with _process(*flags, home=home) as process:
        await asyncio.to_thread(_wait_until_ready, process, url)
        limits = httpx.Limits(max_connections=NUM_STREAMS + 1)
        async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
            texts = [asyncio.create_task(stream(client)) for _ in range(NUM_STREAMS)]
            for _ in texts:
                await begun.acquire()
            assert not any(text.done() for text in texts)
            yield _Streams(process, client, texts)


async def _wait_until_draining(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while (await client.get("/ready")).status_code != 503:
            await asyncio.sleep(0.01)


async def test_sigterm_lets_64_of_64_live_streams_finish_and_ends_with_exit_code_0(
    tiny_base: Path, tmp_path: Path
) -> None:
    async with _streaming(tiny_base, tmp_path, max_tokens=200) as streams:
        streams.process.send_signal(signal.SIGTERM)
        await _wait_until_draining(streams.client)
        assert (await streams.client.get("/health")).status_code == 200
        refused = await streams.client.post("/v1/chat/completions", json=chat_body("tiny-llama"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_stopping")
        for events in await streams.end():
            assert len(text_of(events)) > 0
            assert events[-1] == "[DONE]"
            assert events[-2]["choices"][0]["finish_reason"] == "length"


@pytest.mark.slow
async def test_a_second_sigterm_ends_64_of_64_live_streams_at_once_each_with_an_error_event(
    tiny_base: Path, tmp_path: Path
) -> None:
    async with _streaming(tiny_base, tmp_path, max_tokens=950) as streams:
        streams.process.send_signal(signal.SIGTERM)
        await _wait_until_draining(streams.client)
        assert not any(text.done() for text in streams.texts)
        streams.process.send_signal(signal.SIGTERM)
        for events in await streams.end():
            assert events[-1]["error"]["code"] == "server_stopping"


async def test_a_second_signal_ends_64_of_64_streams_each_with_an_error_event(settings: Settings) -> None:
    with live_server(settings) as (running, server):
        async with httpx.AsyncClient(
            base_url=running.url, timeout=60, limits=httpx.Limits(max_connections=NUM_STREAMS)
        ) as client:
            body = chat_body("tiny-llama", ignore_eos=True, max_tokens=900, stream=True)
            streams = [asyncio.create_task(client.post("/v1/chat/completions", json=body)) for _ in range(NUM_STREAMS)]
            await wait_until_async(lambda: running.engine.stats().num_running == NUM_STREAMS)
            stop(server)
            await wait_until_async(lambda: running.engine.is_draining)
            assert not any(stream.done() for stream in streams)
            stop(server)
            for stream in await asyncio.gather(*streams):
                assert events_of(stream.text)[-1]["error"]["code"] == "server_stopping"


def test_a_port_that_is_taken_while_the_model_loads_is_one_clear_line() -> None:
    """Two sockets may be bound to one port until one of them listens."""
    with open_listener("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with open_listener("127.0.0.1", port) as second:
            begin_to_listen(first)
            with pytest.raises(StartError, match=f"--port {port}"):
                begin_to_listen(second)


def test_starts_that_fail_say_why_in_one_line(tiny_base: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        cases = [
            (["--base", str(tiny_base), "--port", port], 1, f"--port {port}"),
            (["--base", str(tmp_path / "nowhere"), "--port", "0"], 1, "--base"),
            (["--base", str(tiny_base), "--port", "notaport"], 2, "--port"),
        ]
        for flags, code, said in cases:
            with _process(*flags, home=tmp_path) as process:
                _, errors = process.communicate(timeout=WAIT_SECONDS)
            lines = [line for line in errors.splitlines() if line.startswith("hotprompt: ")]
            assert process.returncode == code, errors
            assert len(lines) == 1, errors
            assert said in lines[0]
            assert "Traceback" not in errors
