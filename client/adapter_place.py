"""One set of adapter commands over two places: a store on the disk, and a running server. Prints nothing."""

import io
from dataclasses import dataclass
from typing import Any, Protocol

from adapters.errors import AdapterError, AdapterNameInvalid
from adapters.exporting import files_to_export
from adapters.files import AdapterFiles
from adapters.naming import AdapterReference, check_name
from adapters.records import NameRecord
from adapters.store import AdapterStore, DamagedName
from adapters.tar_format import read_tar
from client.connection import Connection


@dataclass(frozen=True, slots=True)
class CanarySummary:
    """A version that answers `percent` of those who ask."""

    digest: str
    percent: int


@dataclass(frozen=True, slots=True)
class AdapterSummary:
    """What is told of an adapter; `versions` oldest first, `created` in seconds since the epoch, `size` in bytes."""

    name: str
    digest: str
    kind: str
    num_virtual_tokens: int
    hidden_size: int | None
    size: int
    created: int
    pinned: bool
    versions: tuple[str, ...]
    canary: CanarySummary | None
    aliases: tuple[str, ...]
    base: str | None
    training: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class AdapterListing:
    """Every adapter that can be served, and the names that cannot, each with what to do about it."""

    adapters: tuple[AdapterSummary, ...]
    damaged: tuple[DamagedName, ...]


class AdapterPlace(Protocol):
    """Where adapters are. Every method raises AdapterError or ClientError."""

    def list(self) -> AdapterListing: ...

    def show(self, name: str) -> AdapterSummary: ...

    def add(self, name: str, files: AdapterFiles) -> AdapterSummary: ...

    def export(self, reference: str) -> AdapterFiles: ...

    def remove(self, name: str) -> None: ...

    def pin(self, name: str, *, pinned: bool) -> AdapterSummary: ...

    def alias(self, alias: str, target: str) -> AdapterSummary: ...

    def rollback(self, name: str, digest: str | None) -> AdapterSummary: ...

    def canary(self, name: str, digest: str, percent: int) -> AdapterSummary: ...

    def end_canary(self, name: str) -> AdapterSummary: ...


class StorePlace:
    """A store's directory. `base_name` may not name an adapter."""

    def __init__(self, store: AdapterStore, *, base_name: str) -> None:
        self._store = store
        self._base_name = base_name

    def list(self) -> AdapterListing:
        summaries, damaged = [], self._store.damaged_records()
        for record in self._store.names():
            try:
                summaries.append(self._summary(record))
            except AdapterError as error:
                damaged.append(DamagedName(record.name, str(error)))
        return AdapterListing(tuple(summaries), tuple(damaged))

    def show(self, name: str) -> AdapterSummary:
        return self._summary(self._store.record(name))

    def add(self, name: str, files: AdapterFiles) -> AdapterSummary:
        check_name(name, base_name=self._base_name)
        self._store.publish(name, files)
        return self.show(name)

    def export(self, reference: str) -> AdapterFiles:
        return files_to_export(self._store, reference)

    def remove(self, name: str) -> None:
        self._store.remove(name)

    def pin(self, name: str, *, pinned: bool) -> AdapterSummary:
        return self._summary(self._store.pin(name, pinned=pinned))

    def alias(self, alias: str, target: str) -> AdapterSummary:
        check_name(alias, base_name=self._base_name)
        self._store.alias(alias, target)
        return self.show(alias)

    def rollback(self, name: str, digest: str | None) -> AdapterSummary:
        return self._summary(self._store.rollback(name, digest))

    def canary(self, name: str, digest: str, percent: int) -> AdapterSummary:
        return self._summary(self._store.canary(name, digest, percent))

    def end_canary(self, name: str) -> AdapterSummary:
        return self._summary(self._store.end_canary(name))

    def _summary(self, record: NameRecord) -> AdapterSummary:
        manifest = self._store.read(record.name, record.current).manifest
        directory = self._store.path_of(record.current)
        return AdapterSummary(
            name=record.name,
            digest=record.current,
            kind=manifest.kind,
            num_virtual_tokens=manifest.num_virtual_tokens,
            hidden_size=manifest.hidden_size,
            size=sum(file.stat().st_size for file in directory.iterdir()),
            created=record.created,
            pinned=record.pinned,
            versions=tuple(version.digest for version in record.versions),
            canary=CanarySummary(record.canary.digest, record.canary.percent) if record.canary else None,
            aliases=tuple(alias.name for alias in self._store.aliases() if alias.reference.name == record.name),
            base=manifest.base.name if manifest.base else None,
            training=manifest.training.model_dump(mode="json") if manifest.training else None,
        )


class ServerPlace:
    """A running server, through /v1/adapters."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self) -> AdapterListing:
        answer = self._connection.json("GET", "/v1/adapters")
        try:
            return AdapterListing(
                tuple(_from_record(record) for record in answer["data"]),
                tuple(DamagedName(entry["id"], entry["problem"]) for entry in answer["damaged"]),
            )
        except (LookupError, TypeError):
            raise self._connection.not_ours() from None

    def show(self, name: str) -> AdapterSummary:
        return self._ask("GET", _path_of(name))

    def add(self, name: str, files: AdapterFiles) -> AdapterSummary:
        check_name(name)
        parts = {file_name: (file_name, content) for file_name, content in files.by_name().items()}
        return self._ask("POST", "/v1/adapters", data={"name": name}, files=parts)

    def export(self, reference: str) -> AdapterFiles:
        path = f"/v1/adapters/{AdapterReference.parse(reference)}/export"
        return read_tar(io.BytesIO(self._connection.content(path)))

    def remove(self, name: str) -> None:
        self._connection.json("DELETE", _path_of(name))

    def pin(self, name: str, *, pinned: bool) -> AdapterSummary:
        return self._change(name, {"pinned": pinned})

    def alias(self, alias: str, target: str) -> AdapterSummary:
        if "@" in target:
            raise AdapterNameInvalid(f"target: {target!r} is one version; a server's alias stands for a name")
        return self._change(target, {"alias": check_name(alias)})

    def rollback(self, name: str, digest: str | None) -> AdapterSummary:
        return self._change(name, {"rollback": digest or True})

    def canary(self, name: str, digest: str, percent: int) -> AdapterSummary:
        return self._change(name, {"canary": {"digest": digest, "percent": percent}})

    def end_canary(self, name: str) -> AdapterSummary:
        return self._change(name, {"canary": None})

    def _change(self, name: str, change: dict[str, Any]) -> AdapterSummary:
        return self._ask("PATCH", _path_of(name), json=change)

    def _ask(self, method: str, path: str, **arguments: Any) -> AdapterSummary:
        record = self._connection.json(method, path, **arguments)
        try:
            return _from_record(record)
        except (LookupError, TypeError):
            raise self._connection.not_ours() from None


def _path_of(name: str) -> str:
    return f"/v1/adapters/{check_name(name)}"


def _from_record(record: dict[str, Any]) -> AdapterSummary:
    return AdapterSummary(
        name=record["id"],
        digest=record["digest"],
        kind=record["kind"],
        num_virtual_tokens=record["num_virtual_tokens"],
        hidden_size=record["hidden_size"],
        size=record["size"],
        created=record["created"],
        pinned=record["pinned"],
        versions=tuple(version["digest"] for version in record["versions"]),
        canary=CanarySummary(**record["canary"]) if record.get("canary") else None,
        aliases=tuple(record["aliases"]),
        base=record["base"],
        training=record["training"],
    )
