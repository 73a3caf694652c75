"""/v1/adapters: upload, describe, change and remove adapters while the server runs. Parses none of their files."""

import asyncio
from functools import partial

from fastapi import APIRouter, Request, Response

from adapters.errors import AdapterNotFound
from adapters.files import AdapterFiles
from adapters.records import NameRecord
from adapters.weights import Adapter, check_compatible, read_adapter
from server.api.adapter_jobs import SOURCE_CONTENT, start_job
from server.api.adapter_records import adapter_record, adapter_records, damaged_adapters
from server.api.bodies import list_response
from server.api.deps import CHANGE, CHAT, CallerDep, Parts, PartsDep
from server.api.guarded_route import GuardedRoute
from server.api.json_guard import is_json
from server.api.models import remove_adapter
from server.api.new_names import check_new_name
from server.api.pins import pins_settled
from server.api.probe_checks import replayed, settle_probes
from server.api.unbroken import unbroken
from server.api.uploads import UPLOAD_CONTENT, read_upload
from server.errors import BaseModelKept
from server.protocol.adapter_jobs import AdapterJob
from server.protocol.adapters import AdapterChange, AdapterList, AdapterRecord, DeletedAdapter

router = APIRouter(route_class=GuardedRoute)


@router.get("/v1/adapters", dependencies=CHAT, response_model=AdapterList)
def list_adapters(parts: PartsDep, caller: CallerDep) -> Response:
    """Every adapter that this key may use, by name, and the names that are damaged.

    The body is made here, in a worker thread: there may be thousands.
    """
    damaged = damaged_adapters(parts.registry, caller)
    return list_response(adapter_records(parts, caller), damaged=damaged)


@router.get("/v1/adapters/{name}", dependencies=CHAT)
def get_adapter(name: str, parts: PartsDep, caller: CallerDep) -> AdapterRecord:
    """One adapter, by name, or by an alias if this key may use the adapter's own name too."""
    record = parts.registry.store.record(name)
    if not caller.may_use(record.name):
        raise parts.resolver.not_found(name)
    return adapter_record(parts, record, caller)


@router.post(
    "/v1/adapters",
    dependencies=CHANGE,
    status_code=201,
    response_model=AdapterRecord,
    responses={202: {"model": AdapterJob, "description": "The adapter of a JSON body is being fetched"}},
    openapi_extra={
        "requestBody": {"required": True, "content": {**UPLOAD_CONTENT, "application/json": SOURCE_CONTENT}}
    },
)
async def add_adapter(
    request: Request, response: Response, parts: PartsDep, caller: CallerDep
) -> AdapterRecord | Response:
    """Publish an adapter, live: when the answer comes, its name stands for it and its virtual tokens are computed.

    Before the name moves, the adapter's probes are replayed; one that answers them otherwise is refused. A JSON body
    names a source in place of the files: then they are fetched in the background, and published in the same way.
    """
    if is_json(request.headers.get("content-type", "")):
        return await start_job(request, parts, partial(publish_live, parts))
    upload = await read_upload(request, max_weights_bytes=parts.max_weights_bytes)
    await publish_live(parts, upload.name, upload.files)
    response.headers["location"] = f"/v1/adapters/{upload.name}"
    return await asyncio.to_thread(get_adapter, upload.name, parts, caller)


@router.post("/v1/adapters/{name}/verify", dependencies=CHANGE)
async def verify_adapter(name: str, parts: PartsDep, caller: CallerDep) -> AdapterRecord:
    """Replay the probes of the version that a name stands for, and keep what they say; nothing is refused for it."""
    record = await asyncio.to_thread(parts.registry.store.record, name)
    adapter = await asyncio.to_thread(parts.registry.get, f"{record.name}@{record.current}")
    verification = await parts.verifier.verify(adapter)
    noted = await asyncio.to_thread(parts.registry.store.note_verification, record.name, record.current, verification)
    return await asyncio.to_thread(adapter_record, parts, noted, caller)


@router.patch("/v1/adapters/{name}", dependencies=CHANGE)
async def change_adapter(name: str, body: AdapterChange, parts: PartsDep, caller: CallerDep) -> AdapterRecord:
    """Alias, roll back, pin and split; a version is loaded, shown by its probes and computed before it answers."""
    version = await asyncio.to_thread(_version_after, parts, name, body)
    with pins_settled(parts, version.current):
        if body.canary is not None and version.canary is not None:
            canary = await asyncio.to_thread(parts.registry.get, f"{version.name}@{version.canary.digest}")
            await settle_probes(parts, version, canary)
            await parts.engine.prefill(canary.injection)
        if body.rollback is not None or body.pinned:
            adapter = await asyncio.to_thread(parts.registry.get, f"{version.name}@{version.current}")
            if body.rollback is not None:
                await settle_probes(parts, version, adapter)
            is_pinned = version.pinned if body.pinned is None else body.pinned
            await parts.engine.prefill(adapter.injection, is_pinned=is_pinned)
        record = await asyncio.to_thread(_change, parts, version, body)
    return await asyncio.to_thread(adapter_record, parts, record, caller)


@router.delete("/v1/adapters/{name}", dependencies=CHANGE)
def delete_adapter(name: str, parts: PartsDep) -> DeletedAdapter:
    """Remove an adapter or an alias; running requests finish with what they began with."""
    removed = remove_adapter(parts, name)
    return DeletedAdapter(id=name, running=removed.running, was_pinned=removed.was_pinned)


async def publish_live(parts: Parts, name: str, files: AdapterFiles, source: str | None = None) -> str:
    """Publish an adapter whose probes are replayed, and virtual tokens computed, before its name stands for it.

    `source` is where it was fetched from. Gives back its digest. Cancelling it changes nothing, unless the store has
    begun to write: then it is dropped.
    """
    adapter = await asyncio.to_thread(_check, parts, name, files)
    verification = await replayed(parts, adapter)
    is_pinned = await asyncio.to_thread(_is_pinned, parts, name)
    with pins_settled(parts, adapter.injection.digest):
        await parts.engine.prefill(adapter.injection, is_pinned=is_pinned)
        publish = partial(parts.registry.publish, checked=adapter, verification=verification, source=source)
        await unbroken(asyncio.to_thread(publish, name, files))
    return adapter.injection.digest


def _check(parts: Parts, name: str, files: AdapterFiles) -> Adapter:
    """Everything that can be wrong with an upload, before anything changes."""
    check_new_name(name, parts.resolver.base_name)
    adapter = read_adapter(name, files)
    check_compatible(adapter.manifest, parts.registry.base)
    if adapter.manifest.chat_format is not None:
        parts.prompts.try_out(adapter.manifest.chat_format)
    return adapter


def _is_pinned(parts: Parts, name: str) -> bool:
    """Whether a name that may not exist yet is pinned."""
    try:
        return parts.registry.store.record(name).pinned
    except AdapterNotFound:
        return False


def _version_after(parts: Parts, name: str, change: AdapterChange) -> NameRecord:
    """The record as it will be after a roll-back and a canary, if they are asked for."""
    if name == parts.resolver.base_name:
        raise BaseModelKept(f"{name} is the base model, not an adapter")
    record = parts.registry.store.record(name)
    if change.alias is not None:
        check_new_name(change.alias, parts.resolver.base_name)
    if change.rollback is not None:
        record = record.rolled_back(change.rollback if isinstance(change.rollback, str) else None)
    if change.canary is not None:
        record = record.with_canary(change.canary.digest, change.canary.percent)
    return record


def _change(parts: Parts, version: NameRecord, change: AdapterChange) -> NameRecord:
    """Make the changes; the only one that may be refused comes first."""
    registry = parts.registry
    if change.alias is not None:
        registry.alias(change.alias, version.name)
    if change.rollback is not None:
        registry.rollback(version.name, version.current)
    if change.canary is not None:
        registry.store.canary(version.name, change.canary.digest, change.canary.percent)
    elif change.sets_canary:
        registry.store.end_canary(version.name)
    if change.pinned is not None:
        registry.pin(version.name, pinned=change.pinned)
    return registry.store.record(version.name)
