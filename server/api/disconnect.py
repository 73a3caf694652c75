"""Running work for a client only as long as the client is there. Knows nothing of the work."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

Result = TypeVar("Result")


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client hangs up: then ClientDisconnect is raised.

    The request's body must have been read: what comes after it can only be the disconnect.
    """
    task = asyncio.ensure_future(work)
    try:
        await wait_while_connected(request, task, seconds=None)
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def wait_while_connected(request: Request, task: asyncio.Future[Any], *, seconds: float | None) -> None:
    """Wait until the task is done or so many seconds are over; raise ClientDisconnect when the client hangs up first.

    The task is left running. The request's body must have been read.
    """
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if gone.done() and not task.done():
            raise ClientDisconnect
    finally:
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
