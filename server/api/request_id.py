"""Middleware that gives each request an id, for the log and the `x-request-id` header. Never a key of anything."""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.random_ids import random_id
from server.error_handlers import REQUEST_ID_HEADER
from server.telemetry.log_lines import REQUEST_ID

_LEGAL = re.compile(r"[\x21-\x7e]{1,128}")


class RequestIdMiddleware:
    """Echoes the client's id if it is 1 to 128 printable ASCII characters without spaces, else makes one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if _LEGAL.fullmatch(given) else random_id()
        scope.setdefault("state", {})["request_id"] = request_id
        REQUEST_ID.set(request_id)  # not set back: a request has its context to itself, and its failure is logged in it

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)
