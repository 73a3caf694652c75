"""Many requests at once begin a few in each turn of the loop, in order."""

import asyncio
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from server.api.turns import BEGINNERS, TurnsMiddleware


async def test_requests_begin_in_order_and_a_few_in_a_turn() -> None:
    begun: list[tuple[int, int]] = []
    turn = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive, send
        begun.append((scope["number"], turn))

    async def nothing(*_: Any) -> Message:
        return {}

    middleware = TurnsMiddleware(app)
    tasks = [
        asyncio.create_task(middleware({"type": "http", "number": number}, nothing, nothing))  # type: ignore[arg-type]
        for number in range(100)
    ]
    tasks[50].cancel()
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        turn += 1
    assert [number for number, _ in begun] == [number for number in range(100) if number != 50]
    turns = [when for _, when in begun]
    assert max(turns.count(when) for when in turns) <= BEGINNERS
