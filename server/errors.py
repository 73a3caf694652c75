"""The one table from exception to HTTP status and OpenAI error body, and the handlers that use it. Knows no route."""

import errno
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from adapters.errors import (
    AdapterDamaged,
    AdapterError,
    AdapterIncompatible,
    AdapterInUse,
    AdapterInvalid,
    AdapterMismatch,
    AdapterNameInvalid,
    AdapterNotFound,
    AdapterTooLarge,
    AdapterUnsupported,
    CanaryInvalid,
    ChatFormatError,
    ChatTemplateBusy,
    ChatTemplateOverrun,
    StoreFailure,
    StoreReadOnly,
)
from server.engine.errors import (
    EngineDead,
    EngineDown,
    EngineError,
    EngineOverloaded,
    EngineStopping,
    InjectionUnfit,
    LogitBiasInvalid,
    PromptInvalid,
    PromptTooLong,
    ReaderStalled,
    SequenceFailed,
)
from server.protocol.base import FIELD_ERROR
from server.protocol.errors import ErrorBody, ErrorResponse
from server.sources.errors import SourceError, SourceRefused, SourceUnavailable
from server.text.errors import FieldRefused, TextError
from server.text.structure.errors import StructureBusy, StructureFailed, StructureUnsupported

logger = logging.getLogger(__name__)

REQUEST_ID_HEADER = "x-request-id"
PROMPT_FIELD_STATE = "prompt_field"
"""What a request calls its prompt, in its state; `messages` unless its route says so."""
RETRY_AFTER_SECONDS = 1
_MAX_PARAM_CHARS = 256


class RequestRefused(Exception):
    """A request that the API itself refuses, before it reaches the engine or the store."""


class ApiKeyInvalid(RequestRefused):
    """No key, or one that this server does not know."""


class AdminKeyRequired(RequestRefused):
    """A good key for chat, used where adapters are changed."""


class RateLimited(RequestRefused):
    """A key has used up what it may ask in a minute; `retry_after` is in seconds."""

    def __init__(self, message: str, *, retry_after: float = RETRY_AFTER_SECONDS) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RequestsLimited(RateLimited):
    """No more requests for now."""


class TokensLimited(RateLimited):
    """No more tokens for now."""


class BodyRefused(HTTPException):
    """A body that is not what a JSON body may be; `param` is the path of the field, if it is one field's fault.

    FastAPI turns what is raised while it reads a body into a 400, unless it is an HTTPException: so it is one.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(400, message)
        self.param = param


class UploadInvalid(RequestRefused):
    """The parts of an upload are not what they should be."""


class JobNotFound(RequestRefused):
    """No job has that id, or none that is remembered."""


class JobsBusy(RequestRefused):
    """As many adapters are being fetched as may be at once."""


class BaseModelKept(RequestRefused):
    """The base model is not an adapter: it can be neither removed nor changed."""


@dataclass(frozen=True, slots=True)
class Wording:
    """How an exception is told to a client. Without a fixed message, the exception's own text is told."""

    status: int
    type: str
    code: str
    message: str | None = None
    param: str | None = None
    retry: bool = False


_INVALID = "invalid_request_error"
_PROMPT = "messages"
_SERVER = "server_error"
_UNEXPECTED = Wording(500, _SERVER, "internal_error", "The server failed on this request; its log says why.")

# The first entry that the exception is an instance of counts: special ones stand before general ones.
_TABLE: tuple[tuple[type[Exception], Wording], ...] = (
    (ApiKeyInvalid, Wording(401, "authentication_error", "invalid_api_key")),
    (AdminKeyRequired, Wording(403, "permission_error", "admin_key_required")),
    (TokensLimited, Wording(429, "tokens", "rate_limit_exceeded")),
    (RateLimited, Wording(429, "requests", "rate_limit_exceeded")),
    (UploadInvalid, Wording(400, _INVALID, "upload_invalid")),
    (JobNotFound, Wording(404, _INVALID, "job_not_found", param="job")),
    (JobsBusy, Wording(503, _SERVER, "jobs_busy", retry=True)),
    (SourceRefused, Wording(400, _INVALID, "source_refused", param="source")),
    (SourceUnavailable, Wording(400, _INVALID, "source_unavailable", param="source")),
    (BaseModelKept, Wording(400, _INVALID, "base_model_kept", param="model")),
    (AdapterNotFound, Wording(404, _INVALID, "model_not_found", param="model")),
    (AdapterNameInvalid, Wording(400, _INVALID, "adapter_name_invalid", param="name")),
    (AdapterTooLarge, Wording(413, _INVALID, "adapter_too_large")),
    (AdapterUnsupported, Wording(400, _INVALID, "adapter_unsupported")),
    (AdapterMismatch, Wording(400, _INVALID, "adapter_mismatch")),
    (AdapterInvalid, Wording(400, _INVALID, "adapter_invalid")),
    (AdapterIncompatible, Wording(400, _INVALID, "adapter_incompatible")),
    (CanaryInvalid, Wording(400, _INVALID, "invalid_value", param="canary")),
    (AdapterInUse, Wording(409, _INVALID, "adapter_in_use", param="name")),
    (StoreReadOnly, Wording(403, "permission_error", "store_read_only")),
    (
        AdapterDamaged,
        Wording(
            500,
            _SERVER,
            "adapter_damaged",
            "This adapter's files in the store are damaged; publish it again, or roll back.",
        ),
    ),
    (StoreFailure, Wording(500, _SERVER, "store_failure")),
    (
        ChatTemplateBusy,
        Wording(503, _SERVER, "chat_template_busy", "Other chat templates are being rendered; try again.", retry=True),
    ),
    (ChatTemplateOverrun, Wording(400, _INVALID, "chat_template_stopped", param="model")),
    (ChatFormatError, Wording(400, _INVALID, "messages_refused", param=_PROMPT)),
    (FieldRefused, Wording(400, _INVALID, "invalid_value")),
    (StructureUnsupported, Wording(400, _INVALID, "structure_unsupported")),
    (StructureFailed, Wording(400, _INVALID, "structure_failed")),
    (StructureBusy, Wording(503, _SERVER, "grammar_compiler_busy", retry=True)),
    (LogitBiasInvalid, Wording(400, _INVALID, "invalid_value", param="logit_bias")),
    (PromptInvalid, Wording(400, _INVALID, "prompt_invalid", param=_PROMPT)),
    (PromptTooLong, Wording(400, _INVALID, "context_length_exceeded", param=_PROMPT)),
    (InjectionUnfit, Wording(400, _INVALID, "adapter_incompatible", param="model")),
    (EngineOverloaded, Wording(503, _SERVER, "engine_overloaded", "The queue is full; try again.", retry=True)),
    (EngineStopping, Wording(503, _SERVER, "server_stopping", "The server is stopping; try again.", retry=True)),
    (SequenceFailed, Wording(500, _SERVER, "sequence_failed", "This request could not be computed.")),
    (ReaderStalled, Wording(408, _INVALID, "reader_stalled", "The answer was not read for too long, and has ended.")),
    (EngineDead, Wording(500, _SERVER, "engine_dead", "The engine failed while it computed this request; try again.")),
    (
        EngineDown,
        Wording(503, _SERVER, "engine_down", "The engine has failed and is not up again; try later.", retry=True),
    ),
)
_STORE_FULL = Wording(507, _SERVER, "store_full", "The disk of the adapter store is full.")
_FULL = (errno.ENOSPC, errno.EDQUOT)

_HTTP_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}


def wording_of(error: Exception) -> Wording:
    """The table's entry for an exception; an unknown one is an internal error with a fixed text."""
    if isinstance(error, StoreFailure) and isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL:
        return _STORE_FULL
    return next((wording for kind, wording in _TABLE if isinstance(error, kind)), _UNEXPECTED)


def error_body(error: Exception, *, prompt_field: str = _PROMPT) -> ErrorResponse:
    """The JSON body that tells a client of an exception, in an answer or inside a started stream.

    `prompt_field` is what the request calls its prompt.
    """
    wording = wording_of(error)
    param = prompt_field if wording.param == _PROMPT else wording.param
    if isinstance(error, AdapterInvalid | FieldRefused):
        param = error.field
    message = wording.message or str(error)
    return ErrorResponse(error=ErrorBody(message=message, type=wording.type, param=param, code=wording.code))


def error_of(request: Request, error: Exception) -> ErrorBody:
    """What an answer to this request says of an exception."""
    return error_body(error, prompt_field=getattr(request.state, PROMPT_FIELD_STATE, _PROMPT)).error


def log_failure(error: Exception) -> None:
    """Log what is our own fault, with its traceback; what a client did wrong is not logged."""
    wording = wording_of(error)
    if wording.status >= 500 and not wording.retry:
        logger.error("a request failed: %s", type(error).__name__, exc_info=error)


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
    body = ErrorBody(message=message, type=_INVALID, param=param, code=code or _HTTP_CODES.get(status))
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
