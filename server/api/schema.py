"""GET /openapi.json: what this server's routes are, for programs that read it. Open without a key."""

import orjson
from fastapi import APIRouter, Request, Response

from server.api.deps import PartsDep
from server.api.openapi import make_document

VERSION = "1"
"""Of the API, as in its paths."""

router = APIRouter()


@router.get("/openapi.json", include_in_schema=False)
def get_openapi_document(request: Request, parts: PartsDep) -> Response:
    """The document, made anew in a worker thread each time: it is asked for seldom."""
    return Response(orjson.dumps(make_document(request.app, parts.keys, VERSION)), media_type="application/json")
