"""Server processes on one store: what one is told the others answer with, kill -9 loses nothing, some only read."""

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.store import AdapterStore
from tests.server.building import chat_body, multipart, soft_prompt_files

pytestmark = pytest.mark.slow

ADAPTERS = "/v1/adapters"
START_SECONDS = 120
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1  # linux/prctl.h, linux/capability.h


class ServerProcess:
    """`hotprompt serve` in a process of its own, and a client for it."""

    def __init__(self, process: "subprocess.Popen[bytes]", client: httpx.AsyncClient) -> None:
        self._process = process
        self.client = client

    async def wait_until_ready(self) -> None:
        async with asyncio.timeout(START_SECONDS):
            while not await self._is_ready():
                assert self._process.poll() is None, "the server has ended"
                await asyncio.sleep(0.05)

    async def _is_ready(self) -> bool:
        try:
            return (await self.client.get("/ready")).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    async def text(self, model: str) -> str:
        """What it answers, or the status of a refusal."""
        response = await self.client.post("/v1/chat/completions", json=chat_body(model, ignore_eos=True))
        if response.status_code != 200:
            return str(response.status_code)
        text: str = response.json()["choices"][0]["message"]["content"]
        return text

    async def record(self, name: str) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.client.get(f"{ADAPTERS}/{name}")).json()
        return answer

    async def upload(self, name: str, seed: int) -> httpx.Response:
        return await self.client.post(ADAPTERS, data={"name": name}, files=multipart(soft_prompt_files(seed)))


Starter = Callable[..., ServerProcess]


@pytest.fixture
async def start(tiny_base: Path, tmp_path: Path) -> AsyncGenerator[Starter]:
    """Starts servers on one store; they are killed at the end."""
    async with AsyncExitStack() as stack:
        started: list[ServerProcess] = []

        def start_one(*, before: Callable[[], None] | None = None) -> ServerProcess:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = str(free.getsockname()[1])
            command = [sys.executable, "-m", "hotprompt", "serve", "--base", str(tiny_base), "--port", port]
            command += ["--store", str(tmp_path / "store"), "--dtype", "float32", "--kv-cache-memory", "16MiB"]
            environment = os.environ | {"HOTPROMPT_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
            with open(tmp_path / f"{port}.log", "wb") as log:
                process = subprocess.Popen(command, stderr=log, env=environment, preexec_fn=before)
            client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60)
            stack.push_async_callback(client.aclose)
            started.append(ServerProcess(process, client))
            return started[-1]

        try:
            yield start_one
        finally:
            for server in started:
                server.kill()


async def test_two_servers_on_one_store_agree_and_survive_kill_9(start: Starter) -> None:
    one, other = start(), start()
    await asyncio.gather(one.wait_until_ready(), other.wait_until_ready())
    assert await other.text("team") == "404"

    digest = (await one.upload("team", 1)).json()["digest"]
    answer = await one.text("team")
    async with asyncio.timeout(1):
        assert await other.text("team") == answer, "at the first request"
    newer = (await other.upload("team", 2)).json()["digest"]
    assert await one.text("team") == await other.text("team") != answer
    await one.client.patch(f"{ADAPTERS}/team", json={"rollback": digest[:8], "alias": "prod"})
    assert await other.text("prod") == answer
    await other.client.patch(f"{ADAPTERS}/team", json={"pinned": True})
    assert (await one.record("prod"))["pinned"] is True

    for server in (one, other):
        server.kill()
    one, other = start(), start()
    await asyncio.gather(one.wait_until_ready(), other.wait_until_ready())
    for server in (one, other):
        record = await server.record("team")
        assert (record["digest"], record["pinned"], record["resident"]) == (digest, True, True)
        assert [version["digest"] for version in record["versions"]] == [digest, newer]
        assert await server.text("prod") == answer

    await one.client.delete(f"{ADAPTERS}/prod")
    await one.client.delete(f"{ADAPTERS}/team")
    assert await other.text("team") == "404"


async def test_a_process_that_may_only_read_the_store_serves_it_and_follows(start: Starter, tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    store.publish("team", soft_prompt_files(1))
    with only_readable(tmp_path / "store"):
        server = start(before=obey_permissions)
        await server.wait_until_ready()
        answer = await server.text("team")
        refusal = await server.upload("new", 3)
        assert (refusal.status_code, refusal.json()["error"]["code"]) == (403, "store_read_only")
        assert (await server.client.delete(f"{ADAPTERS}/team")).status_code == 403
        assert await server.text("team") == answer
    newer = store.publish("team", soft_prompt_files(2)).manifest.digest
    assert await server.text("team") != answer
    record = await server.record("team")
    assert (record["digest"], record["resident"]) == (newer, True)


@contextmanager
def only_readable(root: Path) -> Iterator[None]:
    """Nothing below may be written to, except by a process that need not obey permissions."""
    paths = [root, *root.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def obey_permissions() -> None:
    """For a child of root: without this capability, it may write only where others may."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)
