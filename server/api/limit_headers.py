"""Middleware that tells a caller what is left of its limits, in every answer to what counts. Knows no limit."""

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.limits import Account

_STATE_KEY = "account"


def note_account(request: Request, account: Account) -> None:
    """Let the answer to this request tell of an account."""
    request.scope["state"][_STATE_KEY] = account


class LimitHeadersMiddleware:
    """Puts `x-ratelimit-` headers on the answers of requests with an account, as it stands when the answer begins."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        state = scope.setdefault("state", {})

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start" and (account := state.get(_STATE_KEY)) is not None:
                MutableHeaders(scope=message).update(account.headers())
            await send(message)

        await self._app(scope, receive, send_with_limits)
