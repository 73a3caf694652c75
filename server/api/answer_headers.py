"""Headers that are known only while a request is answered, put on its answer when that begins. Knows no header."""

from collections.abc import Callable, Mapping

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Headers = Callable[[], Mapping[str, str]]
"""Asked when the answer begins."""

_STATE_KEY = "answer_headers"


def on_answer(request: Request, headers: Headers) -> None:
    """Put these on the answer to this request, whatever it will be."""
    request.scope["state"][_STATE_KEY].append(headers)


class AnswerHeadersMiddleware:
    """Of equal names the one that was told last stands."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        told: list[Headers] = []
        scope.setdefault("state", {})[_STATE_KEY] = told

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                for headers in told:
                    MutableHeaders(scope=message).update(headers())
            await send(message)

        await self._app(scope, receive, send_with_headers)
