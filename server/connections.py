"""Connections: what they send is worked through a few at a time; who never ends a request is cut. Knows no app."""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

READ_IN_A_TURN = 8
"""Pieces worked through in one turn of the loop: a request's head costs a fifth of a millisecond."""
HEAD_SECONDS = 30.0
"""How long a request's head may take, from the connection's or its own beginning."""
BODY_SECONDS = 30.0
"""How long a body that is being read may bring nothing."""


class ReadingTurns:
    """Hands connections what they were sent, a few in a turn, in the order in which it came.

    A loop reads all sockets that have something before anything else runs: a thousand requests that come together
    would hold every stream for as long as a thousand heads take to read. A connection that waits is not read further,
    so at most one piece of it waits. Touched on one event loop only.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[Connection, bytes]] = deque()
        self._is_turning = False
        self._num_read = 0

    def take(self, connection: "Connection", data: bytes) -> None:
        """Hand it on now, or in a later turn."""
        if not self._is_turning:
            self._is_turning = True
            self._loop.call_soon(self._turn)
        if self._num_read < READ_IN_A_TURN and not self._waiting:
            self._num_read += 1
            connection.work_through(data)
        else:
            connection.hold()
            self._waiting.append((connection, data))

    def _turn(self) -> None:
        self._num_read = min(READ_IN_A_TURN, len(self._waiting))
        for _ in range(self._num_read):
            connection, data = self._waiting.popleft()
            connection.release()
            connection.work_through(data)
        self._is_turning = self._num_read > 0
        if self._is_turning:
            self._loop.call_soon(self._turn)


class Connection(H11Protocol):
    """uvicorn's connection, whose bytes come by turns; it knows since when it owes a head or a piece of a body.

    The times are the event loop's, in seconds.
    """

    def __init__(
        self, turns: ReadingTurns, *, config: Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        super().__init__(config=config, server_state=server_state, app_state=app_state)
        self._turns = turns
        self._is_held = False
        self._read_at = self.loop.time()
        self._head_since: float | None = self._read_at

    def data_received(self, data: bytes) -> None:
        self._turns.take(self, data)

    def work_through(self, data: bytes) -> None:
        """What uvicorn does with the bytes, unless the client has gone meanwhile."""
        if self.transport.is_closing():
            return
        self._read_at = self.loop.time()
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._head_since = None
        elif self._head_since is None:
            self._head_since = self._read_at

    def hold(self) -> None:
        """Read no further until what was read has had its turn."""
        self._is_held = True
        self.transport.pause_reading()

    def release(self) -> None:
        """Read on, unless uvicorn has stopped reading for reasons of its own."""
        self._is_held = False
        if not self.flow.read_paused:
            self.transport.resume_reading()

    def owes_since(self, now: float) -> float:
        """For how many seconds the client has owed more than it may; 0 or less where it does not."""
        if self._is_held:
            return 0.0
        if self.conn.their_state is h11.SEND_BODY and not self.flow.read_paused:
            return now - self._read_at - BODY_SECONDS
        return 0.0 if self._head_since is None else now - self._head_since - HEAD_SECONDS


def cut_silent(connections: Iterable[asyncio.Protocol], *, now: float) -> int:
    """Close those whose clients owe a head or a body for too long; how many there were."""
    silent = [one for one in connections if isinstance(one, Connection) and one.owes_since(now) > 0]
    for connection in silent:
        connection.transport.close()
    return len(silent)
