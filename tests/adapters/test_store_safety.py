"""The store under bad names, bad files, damage and a disk that refuses."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.errors import (
    AdapterDamaged,
    AdapterError,
    AdapterInvalid,
    AdapterNameInvalid,
    AdapterNotFound,
    StoreFailure,
)
from adapters.files import AdapterFiles
from adapters.store import AdapterStore
from adapters.tensor_file import WEIGHTS_FILE
from tests.adapters.making import adapter_files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> AdapterStore:
    return AdapterStore(root)


def publish(store: AdapterStore, name: str, seed: int) -> str:
    return store.publish(name, adapter_files(seed=seed)).manifest.digest


def versions_on_disk(root: Path) -> set[str]:
    return {path.name for path in (root / "versions").iterdir()}


def test_a_refused_publish_leaves_the_store_as_it_was(root: Path, store: AdapterStore) -> None:
    publish(store, "a", 1)
    before = sorted(path for path in root.rglob("*"))
    for name, files in (
        ("b", AdapterFiles(b"{}", b"")),
        ("a", AdapterFiles(adapter_files().config, b"pickle")),
        ("a", adapter_files(manifest=b"[]")),
        ("../b", adapter_files()),
    ):
        with pytest.raises((AdapterInvalid, AdapterNameInvalid)):
            store.publish(name, files)
    assert sorted(path for path in root.rglob("*")) == before


class OpenedPaths:
    """What Python opens, renames, makes or deletes while it is watched."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self._watching = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._watching and event in {"open", "os.rename", "os.remove", "os.mkdir", "os.listdir", "os.scandir"}:
            self.paths += [os.fsdecode(path) for path in arguments[:2] if isinstance(path, str | bytes | os.PathLike)]

    @contextmanager
    def watch(self) -> Iterator[None]:
        self._watching = True
        try:
            yield
        finally:
            self._watching = False


@pytest.fixture(scope="module")
def opened_paths() -> OpenedPaths:
    return OpenedPaths()


NASTY_NAMES = st.one_of(
    st.text(),
    st.from_regex(r"(\.\./){1,4}[a-z]+(\.json)?", fullmatch=True),
    st.from_regex(r"/?(etc|tmp)/[a-z.%\\]+", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9._-]{1,70}(@[0-9a-f./]{0,8})?", fullmatch=True),
    st.sampled_from(["..", ".", "a\0b", "%2e%2e/x", "x.json", "CON", "a" * 4096, "．．/x"]),
)


@given(name=NASTY_NAMES)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_name_opens_anything_outside_the_root(root: Path, opened_paths: OpenedPaths, name: str) -> None:
    store = AdapterStore(root)
    opened_paths.paths.clear()
    with opened_paths.watch():
        for ask in (store.record, store.resolve, store.remove, store.rollback):
            with suppress(AdapterError):
                ask(name)
        with suppress(AdapterError):
            store.alias("x", name)
        with suppress(AdapterError):
            store.alias(name, "x")
        with suppress(AdapterError):
            store.publish(name, adapter_files())
            store.remove(name)
    absolute = [path for path in opened_paths.paths if os.path.isabs(path)]
    assert all(os.path.realpath(path).startswith(f"{root.resolve()}{os.sep}") for path in absolute)


def test_every_flipped_byte_of_a_version_is_found(root: Path, store: AdapterStore) -> None:
    digest = publish(store, "a", 1)
    for name in ("adapter_config.json", WEIGHTS_FILE):
        path = root / "versions" / digest / name
        content = path.read_bytes()
        for position in range(len(content)):
            damaged = bytearray(content)
            damaged[position] ^= 0x10
            path.write_bytes(damaged)
            with pytest.raises(AdapterDamaged, match=f"'a' version {digest[:12]} is damaged") as caught:
                store.read("a", digest)
            assert str(root) not in str(caught.value)
        path.write_bytes(content)
    assert store.read("a", digest).manifest.digest == digest


def test_a_version_with_a_missing_file_is_damaged_and_one_that_is_gone_is_not_found(
    root: Path, store: AdapterStore
) -> None:
    digest = publish(store, "a", 1)
    (root / "versions" / digest / WEIGHTS_FILE).unlink()
    with pytest.raises(AdapterDamaged, match="missing"):
        store.read("a", digest)
    (root / "versions" / digest).rename(root / "elsewhere")
    with pytest.raises(AdapterNotFound, match="no version"):
        store.read("a", digest)


def test_publishing_again_mends_a_damaged_version(root: Path, store: AdapterStore) -> None:
    digest = publish(store, "a", 1)
    (root / "versions" / digest / WEIGHTS_FILE).write_bytes(b"")
    assert publish(store, "a", 1) == digest
    assert store.read("a", digest).manifest.digest == digest


GOOD_RECORD = {
    "name": "a",
    "current": "0" * 64,
    "versions": [{"digest": "0" * 64, "created": 1}],
    "pinned": False,
}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b"{}",
        json.dumps({"record": GOOD_RECORD | {"name": "other"}}).encode(),
        json.dumps({"record": GOOD_RECORD | {"name": "../a"}}).encode(),
        json.dumps({"record": GOOD_RECORD | {"current": "1" * 64}}).encode(),
        json.dumps({"record": GOOD_RECORD | {"versions": []}}).encode(),
        json.dumps(
            {"record": GOOD_RECORD | {"current": "../x", "versions": [{"digest": "../x", "created": 1}]}}
        ).encode(),
        json.dumps({"record": {"name": "a", "target": "../../etc/passwd"}}).encode(),
    ],
)
def test_a_damaged_record_hurts_no_other_name(root: Path, store: AdapterStore, content: bytes) -> None:
    digest = publish(store, "b", 1)
    orphan = publish(store, "c", 2)
    (root / "names" / "a.json").write_bytes(content)
    for ask in (store.record, store.resolve, store.rollback):
        with pytest.raises(StoreFailure, match="the record of 'a'"):
            ask("a")
    with pytest.raises(StoreFailure, match="the record of 'a'"):
        publish(store, "a", 3)
    assert [record.name for record in store.names()] == ["b", "c"]
    assert store.resolve("b") == ("b", digest)
    store.remove("c")
    assert orphan in versions_on_disk(root), "the damaged record may mean this version"
    store.remove("a")
    assert versions_on_disk(root) == {digest}
    publish(store, "a", 3)


def test_a_foreign_file_among_the_records_is_no_name(root: Path, store: AdapterStore) -> None:
    publish(store, "a", 1)
    for name in (".DS_Store", "not a name.json", "notes.txt"):
        (root / "names" / name).write_bytes(b"x")
    assert [record.name for record in store.names()] == ["a"]


def test_leftovers_of_a_crash_are_cleared_by_the_next_writer(root: Path, store: AdapterStore) -> None:
    (root / "tmp" / "version-x").mkdir()
    (root / "tmp" / "version-x" / WEIGHTS_FILE).write_bytes(b"half")
    (root / "tmp" / "record-x").write_bytes(b"half")
    (root / "tmp" / "link").symlink_to(root / "names")
    orphan = root / "versions" / ("1" * 64)
    orphan.mkdir()
    digest = publish(store, "a", 1)
    assert list((root / "tmp").iterdir()) == []
    publish(store, "b", 2)
    store.remove("b")
    assert versions_on_disk(root) == {digest}


def test_a_store_where_none_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreFailure, match="cannot be created"):
        AdapterStore(tmp_path / "file" / "store")
