"""Work that is finished although whoever waits for it is cancelled. Knows no work."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


async def unbroken(work: Coroutine[Any, Any, Result]) -> Result:
    """Finish the work and give back its result; a cancellation that comes meanwhile is too late, and is dropped.

    For what cannot be taken back once it has begun: else it would be done, and told as if it were not.
    """
    task = asyncio.create_task(work)
    waiter = asyncio.current_task()
    assert waiter is not None, "a coroutine runs in a task"
    while True:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
            waiter.uncancel()
