"""Middleware that checks JSON bodies before anything reads them. Knows no route and no field."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.json_check import check_json

_IN_A_THREAD_BYTES = 64 * 1024
"""Longer bodies would hold up the event loop."""


class JsonBody:
    """Receives one body whole, checks it, and hands it on in one message. What is wrong is raised to its reader."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_read = False

    async def receive(self) -> Message:
        if self._is_read:
            return await self._receive()
        pieces: list[bytes] = []
        message: Message = {"more_body": True}
        while message.get("more_body", False):
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            pieces.append(message.get("body", b""))
        self._is_read = True
        body = b"".join(pieces)
        if len(body) > _IN_A_THREAD_BYTES:
            await asyncio.to_thread(check_json, body)
        elif body:
            check_json(body)
        return {"type": "http.request", "body": body, "more_body": False}


class JsonGuardMiddleware:
    """Stands between every body that says it is JSON and its reader; bodies that nobody reads are not read here."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_json(Headers(scope=scope).get("content-type", "")):
            receive = JsonBody(receive).receive
        await self._app(scope, receive, send)


def is_json(content_type: str) -> bool:
    """Whether a body of this type is read as JSON."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type.startswith("application/") and (media_type == "application/json" or media_type.endswith("+json"))
