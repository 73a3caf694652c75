"""The header that tells which version of which adapter answers. Knows no route and no model."""

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.naming import AdapterReference
from server.text.request import TellAdapter

ADAPTER_HEADER = "x-hotprompt-adapter"
_STATE_KEY = "adapter"


def noting_adapter(request: Request) -> TellAdapter:
    """What lets the answer to this request tell of its adapter."""

    def note(adapter: AdapterReference | None) -> None:
        request.scope["state"][_STATE_KEY] = adapter

    return note


class AdapterHeaderMiddleware:
    """Puts `name@digest` on answers whose adapter is known when they begin, whatever name the request used."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        state = scope.setdefault("state", {})

        async def send_with_adapter(message: Message) -> None:
            if message["type"] == "http.response.start" and (adapter := state.get(_STATE_KEY)) is not None:
                MutableHeaders(scope=message)[ADAPTER_HEADER] = str(adapter)
            await send(message)

        await self._app(scope, receive, send_with_adapter)
