"""The end of a server: SIGTERM lets streams finish, a second one does not; and starts that must not succeed."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from server.config import Settings
from server.serve import StartError, begin_to_listen, open_listener
from tests.server.building import WAIT_SECONDS, chat_body, events_of, live_server, stop, text_of, tiny_settings

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


async def test_sigterm_lets_8_live_streams_finish_and_ends_with_exit_code_0(tiny_base: Path, tmp_path: Path) -> None:
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    body = chat_body("tiny-llama", ignore_eos=True, max_tokens=400, stream=True)
    with _process("--base", str(tiny_base), "--port", str(port), home=tmp_path) as process:
        await asyncio.to_thread(_wait_until_ready, process, url)
        begun = asyncio.Semaphore(0)

        async def stream(client: httpx.AsyncClient) -> str:
            async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                lines = answer.aiter_lines()
                first = await anext(lines)
                begun.release()
                return "\n".join([first, *[line async for line in lines]])

        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            streams = [asyncio.create_task(stream(client)) for _ in range(8)]
            for _ in streams:
                await begun.acquire()
            assert not any(task.done() for task in streams)
            process.send_signal(signal.SIGTERM)
            for text in await asyncio.gather(*streams):
                events = events_of(text)
                assert len(text_of(events)) > 0
                assert events[-1] == "[DONE]"
                assert events[-2]["choices"][0]["finish_reason"] == "length"
        assert await asyncio.to_thread(process.wait, WAIT_SECONDS) == 0


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
