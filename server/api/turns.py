"""Middleware that lets requests begin a few at a time: many at once would hold the event loop. Knows no route."""

import asyncio
from collections import deque

from starlette.types import ASGIApp, Receive, Scope, Send

BEGINNERS = 2
"""Requests that begin in one turn of the loop: each takes half a millisecond up to its first wait."""


class TurnsMiddleware:
    """Requests begin in the order in which they came. Touched on one event loop only."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            loop = asyncio.get_running_loop()
            turn: asyncio.Future[None] = loop.create_future()
            if not self._waiting:
                loop.call_soon(self._next_turn)
            self._waiting.append(turn)
            await turn
        await self._app(scope, receive, send)

    def _next_turn(self) -> None:
        for _ in range(min(BEGINNERS, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.done():  # its request was cancelled
                turn.set_result(None)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next_turn)
