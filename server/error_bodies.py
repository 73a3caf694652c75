"""The body that tells a client of an exception, in an answer or inside a started stream. Knows no route."""

import logging

from fastapi import Request

from adapters.errors import AdapterInvalid
from server.error_table import PROMPT, wording_of
from server.protocol.errors import ErrorBody, ErrorResponse
from server.text.errors import FieldRefused

logger = logging.getLogger(__name__)

PROMPT_FIELD_STATE = "prompt_field"
"""What a request calls its prompt, in its state; `messages` unless its route says so."""


def error_body(error: Exception, *, prompt_field: str = PROMPT) -> ErrorResponse:
    """The JSON body that tells a client of an exception, in an answer or inside a started stream.

    `prompt_field` is what the request calls its prompt.
    """
    wording = wording_of(error)
    param = prompt_field if wording.param == PROMPT else wording.param
    if isinstance(error, AdapterInvalid | FieldRefused):
        param = error.field
    message = wording.message or str(error)
    return ErrorResponse(error=ErrorBody(message=message, type=wording.type, param=param, code=wording.code))


def error_of(request: Request, error: Exception) -> ErrorBody:
    """What an answer to this request says of an exception."""
    return error_body(error, prompt_field=getattr(request.state, PROMPT_FIELD_STATE, PROMPT)).error


def log_failure(error: Exception) -> None:
    """Log what is our own fault, with its traceback; what a client did wrong is not logged."""
    wording = wording_of(error)
    if wording.status >= 500 and not wording.retry:
        logger.error("a request failed: %s", type(error).__name__, exc_info=error)
