"""Errors and health on the wire. Knows no route and no exception."""

from typing import Literal

from server.protocol.base import ResponseBody


class ErrorBody(ResponseBody):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(ResponseBody):
    error: ErrorBody


class Health(ResponseBody):
    status: Literal["ok", "stopping", "restarting", "stalled", "dead"]
    reason: str | None = None
    """Why it is not ok, where there is more to say."""
