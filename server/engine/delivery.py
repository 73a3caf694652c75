"""Hands what a step made to the readers of one event loop, a slice at a time. Knows no engine and no streams.

A step wakes each of its readers. All at once, a thousand of them would hold the loop for a tenth of a second, and with
it whoever has just connected; between two slices everybody has a turn.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

SLICE = 8
"""Readers that are woken in one turn of the loop."""

Action = Callable[[], object]


class Delivery:
    """Runs actions on its loop in the order in which they came. Touched on that loop only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Action] = deque()

    def add(self, actions: Iterable[Action]) -> None:
        """Run these after all that came before them."""
        is_idle = not self._waiting
        self._waiting.extend(actions)
        if is_idle:
            self._run_slice()

    def _run_slice(self) -> None:
        for _ in range(min(SLICE, len(self._waiting))):
            self._waiting.popleft()()
        if self._waiting:
            self._loop.call_soon(self._run_slice)
