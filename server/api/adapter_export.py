"""GET /v1/adapters/{name}/export: one version of an adapter as a tar. Lays out no tar itself."""

import asyncio

from fastapi import APIRouter, Depends, Response
from fastapi.responses import StreamingResponse

from adapters.exporting import files_to_export
from adapters.tar_format import tar_chunks, tar_size
from server.api.deps import PartsDep, require_admin_key
from server.api.guarded_route import GuardedRoute

router = APIRouter(route_class=GuardedRoute)

MEDIA_TYPE = "application/x-tar"
_TAR_BODY = {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}


@router.get(
    "/v1/adapters/{name}/export",
    dependencies=[Depends(require_admin_key)],
    response_class=StreamingResponse,
    responses={200: _TAR_BODY},
)
async def export_adapter(name: str, parts: PartsDep) -> Response:
    """The files of the version that a name, an alias or `name@digest` stands for: what a key for chat may not have."""
    files = await asyncio.to_thread(files_to_export, parts.registry.store, name)
    headers = {"content-length": str(tar_size(files)), "content-disposition": f'attachment; filename="{name}.tar"'}
    return StreamingResponse(tar_chunks(files), media_type=MEDIA_TYPE, headers=headers)
