"""Several streams as one, each item as soon as it is there. Knows nothing of what flows."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

Item = TypeVar("Item")


async def merged(streams: Sequence[AsyncGenerator[Item]]) -> AsyncGenerator[Item]:
    """Everything that the streams yield; the first exception of one of them ends all.

    Nothing is taken from a stream before the last item is asked for: who reads slowly slows all of them down. Closing
    this closes the streams.
    """
    items: asyncio.Queue[Item | _Ended] = asyncio.Queue(maxsize=1)
    tasks = [asyncio.create_task(_pump(stream, items)) for stream in streams]
    try:
        num_open = len(tasks)
        while num_open:
            item = await items.get()
            if not isinstance(item, _Ended):
                yield item
                continue
            num_open -= 1
            if item.error is not None:
                raise item.error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Ended:
    """The last thing that a stream puts: that it has ended, and why."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error


async def _pump(stream: AsyncGenerator[Item], items: "asyncio.Queue[Item | _Ended]") -> None:
    error = None
    try:
        async with aclosing(stream):
            async for item in stream:
                await items.put(item)
    except Exception as caught:
        error = caught
    await items.put(_Ended(error))
