"""Streams merged into one: nothing lost, order kept inside each, an error and an early end close all of them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from server.text.merging import merged


class Source:
    """Counts up, and knows whether it was closed."""

    def __init__(self, name: str, length: int, *, fails: bool = False) -> None:
        self._name, self._length, self._fails = name, length, fails
        self.num_given = 0
        self.closed = False

    async def stream(self) -> AsyncGenerator[str]:
        try:
            for number in range(self._length):
                await asyncio.sleep(0)
                self.num_given += 1
                yield f"{self._name}{number}"
            if self._fails:
                raise ZeroDivisionError
        finally:
            self.closed = True


async def test_all_items_come_in_the_order_of_their_stream() -> None:
    sources = [Source("a", 5), Source("b", 0), Source("c", 9)]
    items = [item async for item in merged([source.stream() for source in sources])]
    for source, name, length in zip(sources, "abc", (5, 0, 9), strict=True):
        assert [item for item in items if item.startswith(name)] == [f"{name}{number}" for number in range(length)]
        assert source.closed


async def test_an_error_ends_all() -> None:
    sources = [Source("a", 2, fails=True), Source("b", 1_000_000)]
    with pytest.raises(ZeroDivisionError):
        async for _ in merged([source.stream() for source in sources]):
            pass
    assert all(source.closed for source in sources)


async def test_who_stops_reading_closes_all_and_nothing_was_read_far_ahead() -> None:
    sources = [Source("a", 1_000_000), Source("b", 1_000_000)]
    async with aclosing(merged([source.stream() for source in sources])) as items:
        await anext(items)
        for _ in range(50):
            await asyncio.sleep(0)
    assert all(source.closed for source in sources)
    assert sum(source.num_given for source in sources) < 6
