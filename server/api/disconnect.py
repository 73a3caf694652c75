"""Running work for a client only as long as the client is there. Knows nothing of the work."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

Result = TypeVar("Result")


class ClientWatch:
    """Watches whether a client hangs up. Whoever has it must close it.

    The request's body must have been read: what comes after it can only be the disconnect.
    """

    def __init__(self, request: Request) -> None:
        self._gone = asyncio.ensure_future(_disconnected(request))

    async def has_gone_or(self, task: asyncio.Future[Any], *, seconds: float | None) -> bool:
        """Wait until the client hangs up, the task is done, or so many seconds are over: then False."""
        done, _ = await asyncio.wait((task, self._gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)

    async def wait_for(self, task: asyncio.Future[Any], *, seconds: float | None) -> None:
        """Wait until the task is done or so many seconds are over; the task is left running.

        Raises ClientDisconnect when the client hangs up first.
        """
        await self.has_gone_or(task, seconds=seconds)
        if self._gone.done() and not task.done():
            raise ClientDisconnect

    async def aclose(self) -> None:
        """Watch no longer."""
        self._gone.cancel()
        await asyncio.gather(self._gone, return_exceptions=True)


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client hangs up: then ClientDisconnect is raised.

    The request's body must have been read.
    """
    task = asyncio.ensure_future(work)
    client = ClientWatch(request)
    try:
        await client.wait_for(task, seconds=None)
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
