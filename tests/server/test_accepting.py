"""Connections are taken a few in each turn of the loop, and a lack of descriptors pauses it without an end."""

import asyncio
import errno
import socket
from collections.abc import Iterator

import pytest

from server import accepting
from server.accepting import ACCEPTED_IN_A_TURN, PacedListener
from server.serve import open_listener


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with open_listener("127.0.0.1", 0) as listener:
        yield listener


def _clients(listener: socket.socket, number: int) -> list[socket.socket]:
    return [socket.create_connection(listener.getsockname()) for _ in range(number)]


async def test_a_few_connections_are_taken_in_a_turn(listener: socket.socket) -> None:
    made: list[int] = []
    turn = 0

    def protocol() -> asyncio.Protocol:
        made.append(turn)
        return asyncio.Protocol()

    paced = PacedListener(listener, protocol, backlog=64)
    clients = _clients(listener, 40)
    while len(made) < 40:
        await asyncio.sleep(0)
        turn += 1
    assert max(made.count(when) for when in made) <= ACCEPTED_IN_A_TURN
    paced.close()
    paced.close()
    [late] = _clients(listener, 1)  # it waits in the kernel for whoever listens next
    await asyncio.sleep(0.02)
    assert len(made) == 40
    for client in [*clients, late]:
        client.close()


async def test_it_goes_on_after_a_lack_of_descriptors(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accepting, "PAUSE_SECONDS", 0.02)
    num_tries = 0

    class Poor(socket.socket):
        """A listener of a process that has no descriptor left at first."""

        def accept(self) -> tuple[socket.socket, object]:
            nonlocal num_tries
            num_tries += 1
            if num_tries <= 2:
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    made = asyncio.Event()

    def protocol() -> asyncio.Protocol:
        made.set()
        return asyncio.Protocol()

    with Poor(fileno=listener.detach()) as poor:
        paced = PacedListener(poor, protocol, backlog=8)
        [client] = _clients(poor, 1)
        async with asyncio.timeout(10):
            await made.wait()
        paced.close()
        client.close()
    assert num_tries >= 3
    assert "Too many open files" in caplog.text
