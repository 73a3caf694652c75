"""A client that hangs up frees its sequence, streaming or not, and its neighbours do not notice."""

import asyncio
import json
import socket
from typing import Any

import httpx
import pytest

from tests.server.building import Running, chat_body, wait_until_async

ENDLESS: dict[str, Any] = {"ignore_eos": True, "max_tokens": 900}


def _send(running: Running, **fields: Any) -> socket.socket:
    """A raw connection that has just sent a chat request."""
    host, port = running.url.removeprefix("http://").split(":")
    body = json.dumps(chat_body("tiny-llama", **ENDLESS, **fields)).encode()
    connection = socket.create_connection((host, int(port)))
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    head += f"content-length: {len(body)}"
    connection.sendall(head.encode() + b"\r\n\r\n" + body)
    return connection


@pytest.mark.parametrize("stream", [True, False])
async def test_a_dropped_client_frees_its_sequence(live: Running, *, stream: bool) -> None:
    free = live.engine.stats().num_free_blocks
    connections = [_send(live, stream=stream) for _ in range(5)]
    await wait_until_async(lambda: live.engine.stats().num_running == 5)
    for connection in connections:
        connection.close()
    await wait_until_async(lambda: live.engine.stats().num_aborted == 5, seconds=3)
    stats = live.engine.stats()
    assert (stats.num_running, stats.num_waiting, stats.num_free_blocks) == (0, 0, free)


async def test_neighbours_of_dropped_clients_say_what_they_say_alone(live: Running) -> None:
    async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:

        async def answer() -> str:
            body = chat_body("tiny-llama", "neighbour", ignore_eos=True, max_tokens=200)
            text: str = (await client.post("/v1/chat/completions", json=body)).json()["choices"][0]["message"][
                "content"
            ]
            return text

        alone = await answer()
        beside = asyncio.create_task(answer())
        for number in range(10):
            connection = _send(live, stream=number % 2 == 0)
            await asyncio.sleep(0.01)
            connection.close()
        assert await beside == alone
    await wait_until_async(lambda: live.engine.stats().num_running == 0, seconds=5)
