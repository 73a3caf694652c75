"""What a whole server process writes to stderr, from its start to its end."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.server.building import chat_body, wait_until


@pytest.mark.slow
def test_every_line_of_a_server_is_an_object_of_json(tiny_base: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"HOTPROMPT_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "hotprompt", "serve", "--base", str(tiny_base), "--port", str(port)]
    log = tmp_path / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*command, "--dtype", "float32", "--log-format", "json", "--log-prompts"],
            stderr=stderr,
            stdout=stderr,
            env=environment,
        )
        try:
            wait_until(lambda: _is_ready(f"http://127.0.0.1:{port}"), seconds=120)
            url = f"http://127.0.0.1:{port}/v1/chat/completions"
            httpx.post(url, json=chat_body("tiny-llama", "two\nlines", max_tokens=2), timeout=60)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    told = " | ".join(line["message"] for line in lines)
    for part in ("serving on http://127.0.0.1", "POST /v1/chat/completions 200", "stopping"):
        assert part in told
    [asked] = [line for line in lines if line.get("route") == "/v1/chat/completions"]
    assert asked["prompts"] == ["user> two\nlines\nassistant> "]


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready").status_code == 200
    except httpx.TransportError:
        return False
