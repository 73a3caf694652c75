"""GET /v1/adapters/{name}/export: one version of an adapter as a tar. Lays out no tar itself."""

import asyncio

from fastapi import APIRouter, Depends, Response

from adapters.exporting import files_to_export
from adapters.store import AdapterStore
from adapters.tar_format import tar_of
from server.api.deps import PartsDep, require_admin_key
from server.api.guarded_route import GuardedRoute

router = APIRouter(route_class=GuardedRoute)

MEDIA_TYPE = "application/x-tar"
_TAR_BODY = {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}


@router.get(
    "/v1/adapters/{name}/export",
    dependencies=[Depends(require_admin_key)],
    response_class=Response,
    responses={200: _TAR_BODY},
)
async def export_adapter(name: str, parts: PartsDep) -> Response:
    """The files of the version that a name, an alias or `name@digest` stands for: what a key for chat may not have."""
    tar = await asyncio.to_thread(_tar_of, parts.registry.store, name)
    return Response(tar, media_type=MEDIA_TYPE, headers={"content-disposition": f'attachment; filename="{name}.tar"'})


def _tar_of(store: AdapterStore, reference: str) -> bytes:
    return tar_of(files_to_export(store, reference))
