"""Every way to change a store, and what a store looks like from outside: for tests that disturb the change."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from adapters.records import AliasRecord, NameRecord
from adapters.store import AdapterStore
from tests.adapters.making import adapter_files

Change = Callable[[AdapterStore], object]
State = Mapping[str, tuple[str, tuple[str, ...], bool] | str]


def filled_store(root: Path) -> AdapterStore:
    """`a` with two versions, `b` pinned, `shared` with a version of `a`, `prod` for `b`, and `hurt`, damaged."""
    store = AdapterStore(root)
    for name, seed in (("a", 1), ("a", 2), ("b", 3), ("shared", 1)):
        store.publish(name, adapter_files(seed=seed))
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
    "pin": lambda store: store.pin("a", pinned=True),
}


def state_of(store: AdapterStore) -> State:
    """All that the names of a store say."""
    return {record.name: _told(record) for record in store.records()}


def _told(record: NameRecord | AliasRecord) -> tuple[str, tuple[str, ...], bool] | str:
    if isinstance(record, AliasRecord):
        return record.target
    return record.current, tuple(version.digest for version in record.versions), record.pinned


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
