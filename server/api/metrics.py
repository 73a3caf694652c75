"""GET /metrics: the server's figures in Prometheus's text form. Counts nothing itself."""

from fastapi import APIRouter, Depends, Response
from fastapi.responses import PlainTextResponse

from server.api.deps import CallerDep, PartsDep, require_chat_key
from server.api.guarded_route import GuardedRoute

router = APIRouter(route_class=GuardedRoute)

MEDIA_TYPE = "text/plain; version=0.0.4"


@router.get("/metrics", dependencies=[Depends(require_chat_key)], response_class=PlainTextResponse)
def metrics(parts: PartsDep, caller: CallerDep) -> Response:
    """Load, requests, times and adapters; a key for some models is told of no adapter but those."""
    return Response(parts.metrics.text(caller), media_type=MEDIA_TYPE)
