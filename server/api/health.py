"""GET /health and GET /ready, for whoever keeps the server alive or sends it requests. Open without a key."""

from typing import Any

from fastapi import APIRouter, Response

from server.api.deps import PartsDep
from server.protocol.errors import Health

router = APIRouter()


_UNAVAILABLE: dict[int | str, dict[str, Any]] = {503: {"model": Health}}


@router.get("/health", responses=_UNAVAILABLE)
async def health(parts: PartsDep, response: Response) -> Health:
    """200 while the engine's thread lives, draining or not; else 503."""
    if parts.engine.is_alive:
        return Health(status="ok")
    response.status_code = 503
    return Health(status="dead")


@router.get("/ready", responses=_UNAVAILABLE)
async def ready(parts: PartsDep, response: Response) -> Health:
    """200 while new requests are taken; 503 while draining, or when the engine is dead."""
    if parts.engine.is_alive and not parts.engine.is_draining:
        return Health(status="ok")
    response.status_code = 503
    return Health(status="stopping" if parts.engine.is_alive else "dead")
