"""GET /health and GET /ready, for whoever keeps the server alive or sends it requests. Open without a key."""

from typing import Any

from fastapi import APIRouter, Response

from server.api.deps import Parts, PartsDep
from server.protocol.errors import Health

router = APIRouter()


_UNAVAILABLE: dict[int | str, dict[str, Any]] = {503: {"model": Health}}


@router.get("/health", responses=_UNAVAILABLE)
async def health(parts: PartsDep, response: Response) -> Health:
    """200 while the engine is up, draining or not; else 503 with the reason."""
    return _told(_trouble(parts), response)


@router.get("/ready", responses=_UNAVAILABLE)
async def ready(parts: PartsDep, response: Response) -> Health:
    """200 while new requests are taken; 503 while draining, or when the engine is not up."""
    trouble = _trouble(parts)
    if trouble is None and parts.engine.is_draining:
        trouble = Health(status="stopping")
    return _told(trouble, response)


def _trouble(parts: Parts) -> Health | None:
    supervisor = parts.supervisor
    if supervisor.is_up:
        return None
    if supervisor.is_stalled:
        return Health(status="stalled", reason=supervisor.reason)
    if supervisor.has_given_up:
        return Health(status="dead", reason=supervisor.reason)
    return Health(status="stopping" if parts.engine.is_draining else "restarting", reason=supervisor.reason)


def _told(trouble: Health | None, response: Response) -> Health:
    if trouble is None:
        return Health(status="ok")
    response.status_code = 503
    return trouble
