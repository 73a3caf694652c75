"""The handlers that answer an exception with its status and body: those of the table, and FastAPI's own."""

import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from adapters.errors import AdapterError, ChatFormatError
from server.engine.errors import EngineError
from server.error_bodies import error_body, error_of, log_failure
from server.error_table import INVALID, wording_of
from server.errors import RETRY_AFTER_SECONDS, BodyRefused, RateLimited, RequestRefused
from server.protocol.base import FIELD_ERROR
from server.protocol.errors import ErrorBody, ErrorResponse
from server.sources.errors import SourceError
from server.text.errors import TextError

REQUEST_ID_HEADER = "x-request-id"
_MAX_PARAM_CHARS = 256

_HTTP_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}


def install_error_handlers(app: FastAPI) -> None:
    """Answer every exception of the floors below, and FastAPI's own, in the OpenAI error shape."""
    for kind in (RequestRefused, AdapterError, SourceError, ChatFormatError, TextError, EngineError):
        app.add_exception_handler(kind, _on_known)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unexpected)


async def _on_known(request: Request, error: Exception) -> Response:
    log_failure(error)
    wording = wording_of(error)
    headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if wording.retry else {}
    if isinstance(error, RateLimited):
        headers["retry-after"] = str(max(math.ceil(error.retry_after), 1))
    if wording.status == 401:
        headers["www-authenticate"] = "Bearer"
    body = ErrorResponse(error=error_of(request, error))
    return JSONResponse(body.model_dump(), wording.status, headers)


async def _on_disconnect(_: Request, __: Exception) -> Response:
    """Nobody hears this answer; the status is the one that proxies log for a client that hung up."""
    return Response(status_code=499)


async def _on_validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    if isinstance(error.body, bytes):  # FastAPI hands on unread what does not say that it is JSON
        return _told(415, "the body must be a JSON object, sent with content-type: application/json")
    param, message = _worded(problems[0])
    if len(problems) > 1:
        message += f" (problems beside this one: {len(problems) - 1})"
    return _told(400, message, param=param, code="invalid_value")


def _worded(problem: Mapping[str, Any]) -> tuple[str | None, str]:
    """Field and message of one problem of a body."""
    if problem["type"] == "json_invalid":
        return None, f"the body is not valid JSON: {problem['ctx']['error']} (at character {problem['loc'][-1]})"
    path = [str(part) for part in problem["loc"][1:] if not str(part).startswith("<")]  # <…> is a kind, not a field
    if problem["type"].startswith(FIELD_ERROR):
        path.append(problem["type"].removeprefix(FIELD_ERROR))
    param = ".".join(path)[:_MAX_PARAM_CHARS]
    if not param and problem["type"] in ("missing", "model_attributes_type"):
        return None, "the body must be a JSON object, sent with content-type: application/json"
    message = problem["msg"]
    if problem["type"] == "extra_forbidden":
        message = "this field is not known here, and no field is accepted and ignored"
    return param or None, f"{param}: {message}" if param else message


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, BodyRefused):
        return _told(400, error.detail, param=error.param, code="invalid_value" if error.param else "bad_request")
    message, headers = error.detail, error.headers
    if error.status_code in (404, 405):
        message = f"{error.detail}: {request.method} {request.scope['path'][:256]}"
    if error.status_code == 405:
        headers = {"allow": ", ".join(_methods_here(request))}
    return _told(error.status_code, message, headers=headers)


def _told(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An answer that was not made of an exception of the table."""
    body = ErrorBody(message=message, type=INVALID, param=param, code=code or _HTTP_CODES.get(status))
    return JSONResponse(ErrorResponse(error=body).model_dump(), status, headers)


def _methods_here(request: Request) -> list[str]:
    """What may be done at this path, by all its routes: Starlette tells only of the first."""
    return sorted(
        {
            method
            for route in iter_route_contexts(request.app.routes)
            if route.matches(request.scope)[0] is not Match.NONE
            for method in route.methods or ()
        }
    )


async def _on_unexpected(request: Request, error: Exception) -> Response:
    """Starlette logs the traceback: it raises the exception again after this answer."""
    # This handler stands outside every middleware, so the request's id is put on by hand.
    request_id = getattr(request.state, "request_id", None)
    headers = {REQUEST_ID_HEADER: request_id} if request_id else None
    return JSONResponse(error_body(error).model_dump(), 500, headers)
