"""What comes together is read a few pieces in a turn, and clients that owe a head or a body are cut."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from server import connections
from server.connections import BODY_SECONDS, HEAD_SECONDS, READ_IN_A_TURN, Connection, ReadingTurns, cut_silent
from tests.server.building import live_server, tiny_settings
from tests.tiny import save_tiny_base

HEAD = b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 4\r\n\r\n"


async def _echo(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
    """Answers with the body."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Counted(Connection):
    """Notes the turn in which each piece is worked through."""

    read_in: list[int]
    turn: list[int]

    def work_through(self, data: bytes) -> None:
        self.read_in.append(self.turn[0])
        super().work_through(data)


@asynccontextmanager
async def _served(kind: type[Connection] = Connection) -> AsyncIterator[tuple[int, ServerState]]:
    """The port of an echoing server, and uvicorn's record of its connections."""
    state = ServerState()
    config = uvicorn.Config(_echo, http="h11", log_config=None)
    factory = partial(kind, ReadingTurns(), config=config, server_state=state, app_state={})
    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], state


@contextmanager
def _clients(port: int, number: int) -> Iterator[list[socket.socket]]:
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(number)]
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


def _answer(client: socket.socket) -> bytes:
    """All of one answer with a body of four bytes."""
    client.settimeout(30)
    answer = b""
    while len(answer.partition(b"\r\n\r\n")[2]) < 4:
        answer += client.recv(4096)
    return answer


async def test_what_comes_together_is_read_a_few_pieces_in_a_turn_and_in_order() -> None:
    read_in: list[int] = []
    turn = [0]
    kind = type("Kind", (_Counted,), {"read_in": read_in, "turn": turn})
    async with _served(kind) as (port, state):
        with _clients(port, 40) as clients:
            while len(state.connections) < 40:
                await asyncio.sleep(0)
            for index, client in enumerate(clients):
                client.sendall(HEAD + b"%04d" % index)
            while len(read_in) < 40:
                turn[0] += 1
                await asyncio.sleep(0)
            assert max(read_in.count(one) for one in read_in) <= READ_IN_A_TURN
            for index, client in enumerate(clients):
                assert (await asyncio.to_thread(_answer, client)).endswith(b"%04d" % index)


async def test_pieces_of_one_request_stay_in_order_when_they_wait() -> None:
    async with _served() as (port, _):
        with _clients(port, 40) as clients:
            for piece in (HEAD[:20], HEAD[20:], b"12", b"34"):
                for client in clients:
                    client.sendall(piece)
                await asyncio.sleep(0)
            for client in clients:
                assert (await asyncio.to_thread(_answer, client)).endswith(b"1234")


@pytest.mark.parametrize(
    ("sent", "seconds"), [(b"", HEAD_SECONDS), (HEAD[:20], HEAD_SECONDS), (HEAD + b"12", BODY_SECONDS)]
)
async def test_who_owes_a_head_or_a_body_is_cut(sent: bytes, seconds: float) -> None:
    async with _served() as (port, state):
        with _clients(port, 1) as [client]:
            client.sendall(sent)
            await asyncio.sleep(0.05)
            now = asyncio.get_running_loop().time()
            assert cut_silent(state.connections, now=now + seconds - 1) == 0
            assert cut_silent(state.connections, now=now + seconds + 1) == 1
            assert await asyncio.to_thread(client.recv, 4096) == b""
            while state.connections:
                await asyncio.sleep(0)


async def test_who_waits_between_requests_is_left_to_the_keep_alive_time() -> None:
    async with _served() as (port, state):
        with _clients(port, 1) as [client]:
            client.sendall(HEAD + b"1234")
            assert (await asyncio.to_thread(_answer, client)).endswith(b"1234")
            now = asyncio.get_running_loop().time()
            assert cut_silent(state.connections, now=now + 1000) == 0
            client.sendall(HEAD[:20])  # the next one owes its head from here on
            await asyncio.sleep(0.05)
            assert cut_silent(state.connections, now=now + 1000) == 1


def test_a_running_server_cuts_them(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    directory = tmp_path_factory.mktemp("cut")
    with live_server(tiny_settings(save_tiny_base("llama", directory / "base"), directory / "store")) as (running, _):
        port = int(running.url.rpartition(":")[2])
        with _clients(port, 1) as [client]:
            client.settimeout(30)
            client.sendall(HEAD[:20])
            assert client.recv(4096) == b""
