"""Middleware that bounds what is read of a request's body. Knows no route: a route that takes more says so itself."""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DEFAULT_LIMIT_BYTES = 4 * 1024 * 1024
_STATE_KEY = "body_limit"


class BodyLimit:
    """Counts the bytes of one body; raises a 413 before a byte over the limit is kept.

    FastAPI turns what is raised while it reads a body into a 400, unless it is an HTTPException: so it is one.
    """

    def __init__(self, receive: Receive, announced: str | None, limit: int) -> None:
        self._receive = receive
        self._announced = int(announced) if announced is not None and announced.isascii() and announced.isdigit() else 0
        self._limit = limit
        self._reason = ""
        self._received = 0

    def raise_to(self, limit: int, reason: str) -> None:
        """Allow this body more than the default; call it before the body is read."""
        self._limit = max(limit, self._limit)
        self._reason = f": {reason}"

    async def receive(self) -> Message:
        if self._announced > self._limit:
            raise self._too_large()
        message = await self._receive()
        self._received += len(message.get("body", b""))
        if self._received > self._limit:
            raise self._too_large()
        return message

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the body is over the limit of {self._limit} bytes{self._reason}")


class BodyLimitMiddleware:
    """Puts a `BodyLimit` of the default size between every request and its reader."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        limit = BodyLimit(receive, Headers(scope=scope).get("content-length"), DEFAULT_LIMIT_BYTES)
        scope.setdefault("state", {})[_STATE_KEY] = limit
        await self._app(scope, limit.receive, send)


def raise_body_limit(request: Request, limit: int, *, reason: str) -> None:
    """Allow the body of this request up to `limit` bytes, set by `reason`; call it before the body is read."""
    body_limit: BodyLimit = request.scope["state"][_STATE_KEY]
    body_limit.raise_to(limit, reason)
