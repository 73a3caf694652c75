"""Takes connections a few at a time, so that a thousand that come at once do not hold the loop. Knows no HTTP."""

import asyncio
import logging
import socket
from collections.abc import Callable

ACCEPTED_IN_A_TURN = 4
"""Connections taken in one turn of the loop; the others wait in the listener's queue."""
PAUSE_SECONDS = 1.0
"""How long nothing is taken after the machine had no descriptor or memory for one."""

logger = logging.getLogger(__name__)


class PacedListener:
    """Gives each connection to a socket, which it does not own, its protocol; `backlog` of them may wait in the kernel.

    A loop's own server takes all that wait before anything else runs: a thousand new connections hold every stream for
    as long as a thousand protocols take to build. Touched on one event loop only.
    """

    def __init__(
        self, listener: socket.socket, protocol_factory: Callable[[], asyncio.Protocol], *, backlog: int
    ) -> None:
        self._listener = listener
        self._protocol_factory = protocol_factory
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[None]] = set()
        self._resuming: asyncio.TimerHandle | None = None
        self._is_open = True
        listener.setblocking(False)  # noqa: FBT003
        listener.listen(backlog)
        self._loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Take no more connections; those that were taken live on."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._listener)
            if self._resuming is not None:
                self._resuming.cancel()

    def _accept(self) -> None:
        for _ in range(ACCEPTED_IN_A_TURN):
            try:
                connection, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            task = self._loop.create_task(self._connect(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol_factory, connection)
        except OSError:  # the client left meanwhile
            connection.close()

    def _pause(self, error: OSError) -> None:
        """The listener stays readable when there is no descriptor left: asking at once again would spin."""
        logger.warning("no connection is taken for %g s: %s", PAUSE_SECONDS, error.strerror)
        self._loop.remove_reader(self._listener)
        self._resuming = self._loop.call_later(PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._resuming = None
        self._loop.add_reader(self._listener, self._accept)
