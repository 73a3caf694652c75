"""Every way to change a store, and what a store looks like from outside: for tests that disturb the change."""

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from adapters.records import AliasRecord, NameRecord
from adapters.store import AdapterStore
from adapters.tar_format import read_tar, tar_chunks
from adapters.verification import NO_PROBES, unverified
from tests.adapters.making import adapter_files

Change = Callable[[AdapterStore], object]
State = Mapping[str, tuple[object, ...] | str]
REPLAYED = unverified(NO_PROBES, "float32", checked=1)
TAR = b"".join(tar_chunks(adapter_files(seed=9, manifest=b"{}")))


def filled_store(root: Path) -> AdapterStore:
    """`a` has two versions, `b` is pinned, `shared` has a version of `a` and a canary, `prod` is `b`, `hurt` hurt."""
    store = AdapterStore(root)
    for name, seed in (("a", 1), ("a", 2), ("b", 3), ("shared", 4), ("shared", 1)):
        store.publish(name, adapter_files(seed=seed))
    store.canary("shared", store.record("shared").versions[0].digest, 5)
    store.pin("b", pinned=True)
    store.alias("prod", "b")
    digest = store.publish("hurt", adapter_files(seed=8)).manifest.digest
    (store.path_of(digest) / "adapter_config.json").write_bytes(b"{}")
    return store


CHANGES: dict[str, Change] = {
    "publish a new name": lambda store: store.publish("new", adapter_files(seed=7, manifest=b"{}")),
    "publish a new version": lambda store: store.publish("a", adapter_files(seed=7)),
    "publish what another name has": lambda store: store.publish("b", adapter_files(seed=2)),
    "publish an old version again": lambda store: store.publish("a", adapter_files(seed=1)),
    "publish what is damaged": lambda store: store.publish("hurt", adapter_files(seed=8)),
    "make an alias": lambda store: store.alias("live", "a"),
    "move an alias": lambda store: store.alias("prod", "a"),
    "delete an alias": lambda store: store.remove("prod"),
    "delete a name": lambda store: store.remove("a"),
    "delete a damaged name": lambda store: store.remove("hurt"),
    "roll back": lambda store: store.rollback("a"),
    "import": lambda store: store.publish("imported", read_tar(io.BytesIO(TAR))),
    "start a canary": lambda store: store.canary("a", store.record("a").versions[0].digest, 30),
    "end a canary": lambda store: store.end_canary("shared"),
    "note what probes said": lambda store: store.note_verification("a", store.record("a").current, REPLAYED),
    "pin": lambda store: store.pin("a", pinned=True),
}


def state_of(store: AdapterStore) -> State:
    """All that the names of a store say."""
    return {record.name: _told(record) for record in store.records()}


def _told(record: NameRecord | AliasRecord) -> tuple[object, ...] | str:
    if isinstance(record, AliasRecord):
        return record.target
    versions = tuple((version.digest, version.verification) for version in record.versions)
    return record.current, versions, record.pinned, record.canary


def read_everything(store: AdapterStore, *, but: str) -> None:
    """Every version of every name is there and whole. Raises AdapterError."""
    for record in store.names():
        if record.name != but:
            for version in record.versions:
                store.read(record.name, version.digest)


def litter_of(root: Path) -> list[str]:
    """What lies in a store and belongs to nothing in it."""
    store = AdapterStore(root)
    named = {version.digest for record in store.names() for version in record.versions}
    quarantined = os.listdir(root / "quarantine") if (root / "quarantine").is_dir() else []
    return [
        *(f"tmp/{name}" for name in os.listdir(root / "tmp")),
        *(f"versions/{digest}" for digest in store.digests() if digest not in named),
        *(f"quarantine/{digest}" for digest in quarantined if digest not in named),
        *(f"names/{name}" for name in os.listdir(root / "names") if not name.endswith(".json")),
    ]
