"""vLLM's calls that load and unload an adapter, of any kind that is served. Opens no file itself."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from adapters.errors import AdapterNameInvalid, AdapterNotFound
from adapters.naming import check_name
from server.api.adapters import publish_live
from server.api.deps import CHANGE, Parts, PartsDep
from server.api.guarded_route import GuardedRoute
from server.api.models import remove_adapter
from server.protocol.lora_adapters import LoadLoraAdapter, UnloadLoraAdapter
from server.sources.errors import SourceError
from server.text.errors import FieldRefused

router = APIRouter(route_class=GuardedRoute)


@router.post("/v1/load_lora_adapter", dependencies=CHANGE, response_class=PlainTextResponse)
async def load_lora_adapter(body: LoadLoraAdapter, parts: PartsDep) -> Response:
    """Publish the adapter in a directory of the server, live and for good; under a name that exists if told so."""
    name = body.lora_name
    with _fields_named():
        if not body.load_inplace and await asyncio.to_thread(_exists, parts, name):
            raise FieldRefused(
                "lora_name", f"{name!r} has already been loaded; with load_inplace it becomes a new version"
            )
        files = await asyncio.to_thread(parts.roots.read, body.lora_path)
        await publish_live(parts, name, files, body.lora_path)
    return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")


@router.post("/v1/unload_lora_adapter", dependencies=CHANGE, response_class=PlainTextResponse)
def unload_lora_adapter(body: UnloadLoraAdapter, parts: PartsDep) -> Response:
    """Remove an adapter from the server and its store; running requests finish with what they began with."""
    with _fields_named():
        remove_adapter(parts, body.lora_name)
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")


def _exists(parts: Parts, name: str) -> bool:
    check_name(name, base_name=parts.resolver.base_name)
    try:
        parts.registry.store.record(name)
    except AdapterNotFound:
        return False
    return True


@contextmanager
def _fields_named() -> Iterator[None]:
    """What is wrong with name or path is told by the fields of these bodies."""
    try:
        yield
    except AdapterNameInvalid as error:
        raise FieldRefused("lora_name", str(error).removeprefix("name: ")) from None
    except SourceError as error:
        raise FieldRefused("lora_path", str(error)) from None
