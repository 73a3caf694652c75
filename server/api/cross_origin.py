"""Which web pages of other origins may call this server: none but those that the settings name. Knows no route."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from server.api.answered_by import ADAPTER_HEADER
from server.error_handlers import REQUEST_ID_HEADER
from server.protocol.errors import ErrorBody, ErrorResponse

METHODS = ("GET", "POST", "PATCH", "DELETE")
EXPOSED_HEADERS = (
    REQUEST_ID_HEADER,
    ADAPTER_HEADER,
    "retry-after",
    "location",
    *(f"x-ratelimit-{kind}-{unit}" for kind in ("limit", "remaining", "reset") for unit in ("requests", "tokens")),
)


class CrossOriginMiddleware(CORSMiddleware):
    """Starlette's, with a refused preflight in the shape of all errors.

    No cookies and no credentials are ever allowed: a page sends its key as a header, which any header may be.
    """

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        super().__init__(
            app, allow_origins=origins, allow_methods=METHODS, allow_headers=("*",), expose_headers=EXPOSED_HEADERS
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        body = ErrorBody(
            message="this origin or method is not allowed here (--cors-origins)",
            type="invalid_request_error",
            param=None,
            code="origin_not_allowed",
        )
        return JSONResponse(ErrorResponse(error=body).model_dump(), 403, {"vary": response.headers["vary"]})
