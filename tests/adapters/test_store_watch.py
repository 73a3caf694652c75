"""A watch tells every change of a store once, whoever made it, however quickly, and looks at records only after one."""

import os
from pathlib import Path

import pytest

from adapters.errors import StoreFailure
from adapters.store import AdapterStore
from adapters.store_watch import StoreWatch
from tests.adapters.making import adapter_files
from tests.adapters.store_changes import CHANGES, filled_store, state_of


def changed(watch: StoreWatch) -> set[str]:
    return set(watch.look().names)


@pytest.mark.parametrize("change", list(CHANGES))
def test_every_change_is_told_once(tmp_path: Path, change: str) -> None:
    store = filled_store(tmp_path / "store")
    before = dict(state_of(store))
    watch = AdapterStore(tmp_path / "store").watch()
    assert changed(watch) == set()
    CHANGES[change](store)
    after = dict(state_of(store))
    differing = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    told = changed(watch)
    assert differing <= told
    assert len(told) <= 1
    assert changed(watch) == set()


def test_changes_within_a_tick_of_the_clock_are_told(tmp_path: Path) -> None:
    """The directory's time stays the same, as on a file system whose clock is slow."""
    store = AdapterStore(tmp_path)
    store.publish("a", adapter_files(seed=0))
    watch = store.watch()
    time_of_change = os.stat(tmp_path / "names").st_mtime_ns
    for seed in range(1, 30):
        store.publish("a", adapter_files(seed=seed))
        os.utime(tmp_path / "names", ns=(time_of_change, time_of_change))
        assert changed(watch) == {"a"}


def test_records_are_looked_at_only_after_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = AdapterStore(tmp_path)
    store.publish("a", adapter_files())
    long_ago = os.stat(tmp_path).st_mtime_ns - 10**10
    for directory in ("names", "versions"):
        os.utime(tmp_path / directory, ns=(long_ago, long_ago))
    watch = store.watch()
    monkeypatch.setattr(os, "scandir", lambda _: pytest.fail("the records are looked at"))
    for _ in range(3):
        changes = watch.look()
        assert (set(changes.names), changes.has_other_versions) == (set(), False)
    monkeypatch.undo()
    store.remove("a")
    changes = watch.look()
    assert (set(changes.names), changes.has_other_versions) == ({"a"}, True)


def test_what_is_no_record_is_not_told(tmp_path: Path) -> None:
    watch = AdapterStore(tmp_path).watch()
    for name in (".DS_Store", "not a name.json", "notes.txt"):
        (tmp_path / "names" / name).write_bytes(b"x")
    assert changed(watch) == set()


def test_a_look_that_fails_loses_no_change(tmp_path: Path) -> None:
    store = AdapterStore(tmp_path)
    watch = store.watch()
    store.publish("a", adapter_files())
    (tmp_path / "names").rename(tmp_path / "away")
    with pytest.raises(StoreFailure, match="cannot be watched: No such file"):
        watch.look()
    (tmp_path / "away").rename(tmp_path / "names")
    assert changed(watch) == {"a"}
