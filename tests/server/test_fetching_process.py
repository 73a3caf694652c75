"""`hotprompt serve` as an operator starts it: sources by the environment, and an end in the middle of a download."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.building import chat_body, soft_prompt_files, wait_until
from tests.server.sources.bucket_server import BucketServer, bucket_server
from tests.server.sources.hub_server import COMMIT, Hub, small_hub

pytestmark = pytest.mark.slow

ADAPTERS = "/v1/adapters"
SOURCES = "hf://org,s3://team"
START_SECONDS = 120


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with small_hub(monkeypatch) as hub:
        yield hub


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketServer]:
    with bucket_server(monkeypatch) as server:
        server.make_bucket("team")
        yield server


class Server:
    """A server's process, its address, and what it logs."""

    def __init__(self, base: Path, place: Path, **environment: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.log = place / "log"
        command = [sys.executable, "-m", "hotprompt", "serve", "--base", str(base), "--port", str(port)]
        command += ["--store", str(place / "store"), "--dtype", "float32", "--kv-cache-memory", "16MiB"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, env=os.environ | environment)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.client.get("/ready").status_code == 200
        except httpx.TransportError:
            return False

    def start_job(self, name: str, source: str) -> str:
        return self.client.post(ADAPTERS, json={"name": name, "source": source}).headers["location"]

    def job(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.get(path).json()
        return answer


@pytest.fixture
def server(tiny_base: Path, tmp_path: Path, hub: Hub) -> Iterator[Server]:
    place = {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "hf_secret",
        "HOTPROMPT_ADAPTER_SOURCES": SOURCES,
    }
    server = Server(tiny_base, tmp_path, **place)
    try:
        wait_until(server.is_ready, seconds=START_SECONDS)
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        server.client.close()


def test_the_environment_says_where(bucket: BucketServer, hub: Hub, server: Server) -> None:
    hub.put_adapter("org/support", soft_prompt_files(1))
    bucket.put_adapter("team/sales", soft_prompt_files(2))
    jobs = {
        name: server.start_job(name, source) for name, source in (("a", "hf://org/support"), ("b", "s3://team/sales"))
    }
    wait_until(lambda: all(server.job(path)["state"] == "ready" for path in jobs.values()))
    assert server.job(jobs["a"])["resolved"] == f"hf://org/support@{COMMIT}"
    for name in jobs:
        assert server.client.post("/v1/chat/completions", json=chat_body(name)).status_code == 200
    log = server.log.read_text()
    assert "hf_secret" not in log
    assert "secret-of-the-tests" not in log
    assert "/large/" not in log, "addresses that the hub signs are not logged"


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGKILL])
def test_an_end_in_the_middle_leaves_no_litter(hub: Hub, server: Server, tmp_path: Path, kind: signal.Signals) -> None:
    hub.put_adapter("org/support", soft_prompt_files(1))
    hub.gate.clear()
    path = server.start_job("support", "hf://org/support")
    wait_until(lambda: server.job(path)["bytes_fetched"] > 0)
    server.process.send_signal(kind)
    assert server.process.wait(20) == (0 if kind is signal.SIGTERM else -signal.SIGKILL)
    left = {file.relative_to(tmp_path / "store") for file in (tmp_path / "store").rglob("*") if file.is_file()}
    assert {str(file) for file in left} <= {"lock"}
