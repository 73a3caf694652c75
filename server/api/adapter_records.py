"""What the API tells of an adapter: the store's record, its manifest, and whether it is in memory."""

import logging
from collections.abc import Sequence

from pydantic import ValidationError

from adapters.errors import AdapterDamaged
from adapters.manifest import MANIFEST_FILE, AdapterManifest
from adapters.records import AliasRecord, NameRecord
from adapters.registry import AdapterRegistry
from adapters.store import AdapterStore
from adapters.verification import NO_PROBES, Verification
from server.api.deps import Parts
from server.keys import Caller
from server.protocol.adapters import (
    AdapterCanary,
    AdapterRecord,
    AdapterUsage,
    AdapterVerification,
    AdapterVersion,
    DamagedAdapter,
)

logger = logging.getLogger(__name__)


def adapter_record(parts: Parts, record: NameRecord, caller: Caller) -> AdapterRecord:
    """Describe the current version of a name, with the aliases that the caller may use.

    Reads the disk. Raises AdapterDamaged.
    """
    return _describe(parts, record, caller, _aliases(parts.registry, caller))


def adapter_records(parts: Parts, caller: Caller) -> list[AdapterRecord]:
    """Describe every name that the caller may use; one that is damaged, or removed meanwhile, is left out.

    A warning tells of a damaged one.
    """
    records = []
    aliases = _aliases(parts.registry, caller)
    for record in parts.registry.store.names():
        if not caller.may_use(record.name):
            continue
        try:
            records.append(_describe(parts, record, caller, aliases))
        except AdapterDamaged as error:
            logger.warning("%r is left out of the list: %s", record.name, error)
    return records


def damaged_adapters(registry: AdapterRegistry, caller: Caller) -> list[DamagedAdapter]:
    """The names that the caller may use and that are damaged."""
    return [
        DamagedAdapter(id=damaged.name, problem=damaged.problem)
        for damaged in registry.store.damaged()
        if caller.may_use(damaged.name)
    ]


def _aliases(registry: AdapterRegistry, caller: Caller) -> list[AliasRecord]:
    return [alias for alias in registry.store.aliases() if caller.may_use(alias.name)]


def _describe(parts: Parts, record: NameRecord, caller: Caller, aliases: Sequence[AliasRecord]) -> AdapterRecord:
    store = parts.registry.store
    running = parts.use.running(record.name)
    use = parts.use.of(record.name)
    manifest = _read_manifest(store, record.current)
    may_change = parts.keys.may_change(caller)  # paths and buckets are told to no one else
    return AdapterRecord(
        id=record.name,
        digest=record.current,
        created=record.created,
        versions=[
            AdapterVersion(
                digest=version.digest,
                created=version.created,
                running=running[version.digest],
                source=version.source if may_change else None,
            )
            for version in record.versions
        ],
        canary=AdapterCanary(**record.canary.model_dump()) if record.canary else None,
        aliases=[alias.name for alias in aliases if alias.reference.name == record.name],
        pinned=record.pinned,
        resident=parts.registry.is_resident(record.current),
        kind=manifest.kind,
        num_virtual_tokens=manifest.num_virtual_tokens,
        hidden_size=manifest.hidden_size,
        size=_size_of(store, record.current),
        base=manifest.base.name if manifest.base else None,
        training=manifest.training.model_dump(mode="json") if manifest.training else None,
        running=running.total(),
        usage=AdapterUsage(
            requests=use.requests, prompt_tokens=use.prompt_tokens, completion_tokens=use.generated_tokens
        ),
        verification=_verification(record.version(record.current).verification, manifest),
    )


def _verification(found: Verification | None, manifest: AdapterManifest) -> AdapterVerification:
    """What is known of a version, whose probes may not have been replayed yet."""
    if found is not None:
        return AdapterVerification(**found.model_dump())
    return AdapterVerification(
        state="unverified",
        engine=None,
        checked=None,
        num_probes=len(manifest.probes.items) if manifest.probes else 0,
        num_replayed=0,
        num_equal=0,
        largest_difference=None,
        probe=None,
        detail="no server has replayed its probes yet" if manifest.probes else NO_PROBES,
    )


def _read_manifest(store: AdapterStore, digest: str) -> AdapterManifest:
    try:
        return AdapterManifest.model_validate_json((store.path_of(digest) / MANIFEST_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise AdapterDamaged(f"the manifest of version {digest[:12]} cannot be read") from error


def _size_of(store: AdapterStore, digest: str) -> int:
    try:
        return sum(file.stat().st_size for file in store.path_of(digest).iterdir())
    except OSError as error:
        raise AdapterDamaged(f"the files of version {digest[:12]} cannot be read") from error
