"""Refuses what web pages of other origins send, but for those that the settings name. Knows no route.

A browser asks before it sends JSON to another origin (CORS), but not before it sends a form: an upload of an adapter is
one. Without keys, any page could send it to a server on its visitor's machine.
"""

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from server.protocol.errors import ErrorBody, ErrorResponse

_HARMLESS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN = frozenset({"same-origin", "none"})
"""`Sec-Fetch-Site` of the server's own page, and of what the user typed (https://www.w3.org/TR/fetch-metadata/)."""


class ForeignOriginsMiddleware:
    """Lets pass whatever no browser sent, and what a page of this server or of an allowed origin sends."""

    def __init__(self, app: ASGIApp, allowed: tuple[str, ...]) -> None:
        self._app = app
        self._allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _HARMLESS or not self._is_foreign(Headers(scope=scope)):
            return await self._app(scope, receive, send)
        body = ErrorBody(
            message="a page of this origin may send nothing here (--cors-origins)",
            type="invalid_request_error",
            param=None,
            code="origin_not_allowed",
        )
        await JSONResponse(ErrorResponse(error=body).model_dump(), 403)(scope, receive, send)

    def _is_foreign(self, headers: Headers) -> bool:
        """Browsers say where a request comes from, old ones and those on plain HTTP by `Origin` alone."""
        origin = headers.get("origin")
        if origin in self._allowed:
            return False
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site not in _OWN
        return origin is not None and origin.partition("://")[2] != headers.get("host")
