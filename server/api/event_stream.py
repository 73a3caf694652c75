"""EventStream: a response of server-sent events with signs of life, which ends with its reader. Knows no event.

Written for a thousand streams: an event costs one message to the socket, and no timer, task or scope of its own.
"""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.api.disconnect import ClientWatch

PING_SECONDS = 15
SEND_TIMEOUT_SECONDS = 30

PING = b": ping\n\n"

Write = Callable[[bytes], Awaitable[None]]
"""Sends whole events; waits while the client reads too slowly."""


class SendTimeoutError(TimeoutError):
    """The client has read nothing for SEND_TIMEOUT_SECONDS."""


class EventStream(Response):
    """Sends what `write` writes, until it returns or the client has gone; however that ends, `close` is called.

    Whoever writes must give the event loop a turn before every event: on a connection that has gone sending never
    waits, and what is ready all the time would hold the loop until its end.
    """

    media_type = "text/event-stream"

    def __init__(
        self, write: Callable[[Write], Awaitable[None]], client: ClientWatch, *, close: Callable[[], Awaitable[None]]
    ) -> None:
        self.status_code = 200
        self.background = None
        self._write = write
        self._client = client
        self._close = close
        self.init_headers({"Cache-Control": "no-cache", "Connection": "keep-alive", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Raises SendTimeoutError, and what `write` raises."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            sender = _Sender(send)
            writing = asyncio.ensure_future(sender.run(self._write))
            try:
                while not await self._client.has_gone_or(writing, seconds=PING_SECONDS):
                    await sender.ping()
                if writing.done():
                    writing.result()
            finally:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
        finally:
            await self._client.aclose()
            await self._close()


class _Sender:
    """One stream's messages to its socket, with a bound on how long each may wait for its reader.

    One timer watches over all of them: it is set anew only when it rings.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._sending_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_late = False

    async def run(self, write: Callable[[Write], Awaitable[None]]) -> None:
        """All messages after the head. Raises SendTimeoutError, and what `write` raises."""
        writing = asyncio.current_task()
        assert writing is not None, "a coroutine runs in a task"
        self._watch(writing)
        try:
            await write(self.send)
            self._sending_since = self._loop.time()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except asyncio.CancelledError:
            if self._is_late:
                raise SendTimeoutError from None
            raise
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def send(self, events: bytes) -> None:
        """One message; waits while the client reads too slowly."""
        self._sending_since = self._loop.time()
        await self._send({"type": "http.response.body", "body": events, "more_body": True})
        self._sending_since = None

    async def ping(self) -> None:
        """A sign of life, unless what was sent before still waits to be read. Raises SendTimeoutError."""
        if self._sending_since is not None:
            return
        try:
            async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
                await self._send({"type": "http.response.body", "body": PING, "more_body": True})
        except TimeoutError:
            raise SendTimeoutError from None

    def _watch(self, writing: "asyncio.Task[None]") -> None:
        now = self._loop.time()
        since = now if self._sending_since is None else self._sending_since
        if now - since >= SEND_TIMEOUT_SECONDS:
            self._is_late = True
            writing.cancel()
        else:
            self._timer = self._loop.call_at(since + SEND_TIMEOUT_SECONDS, self._watch, writing)
