"""Every change to a store, killed at each of its system calls, and refused by the disk at each of them."""

import errno
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from adapters.errors import StoreFailure
from adapters.store import AdapterStore
from tests.adapters.faulty_calls import REFUSALS, Refusal
from tests.adapters.making import adapter_files
from tests.adapters.store_changes import CHANGES, filled_store, litter_of, read_everything, state_of

FEW_CHANGES = ["publish a new version", "publish what is damaged", "move an alias", "delete a name"]


@pytest.mark.parametrize(
    ("moments", "changes"),
    [
        (["before"], FEW_CHANGES),
        pytest.param(["before", "after"], list(CHANGES), marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
    ids=["before each of a few", "before and after each"],
)
def test_killed_at_every_system_call(tmp_path: Path, moments: list[str], changes: list[str]) -> None:
    command = [sys.executable, "-m", "tests.adapters.dying_writer", str(tmp_path), ",".join(moments), *changes]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=590)
    summary = json.loads(finished.stdout)
    assert summary["problems"] == []
    assert set(summary["deaths"]) == set(changes)
    assert min(summary["deaths"].values()) >= 15 * len(moments), "too few calls for one that is flushed"


@pytest.fixture
def no_flushing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a power cut would show whether it is done; that it is asked for, and may fail, is part of these tests."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def failure_of(store: AdapterStore, change: str, refusal: Refusal) -> StoreFailure | None:
    """What a change fails with; None where it is made all the same."""
    with refusal.active():
        try:
            CHANGES[change](store)
        except StoreFailure as failure:
            return failure
    return None


@pytest.mark.usefixtures("no_flushing")
@pytest.mark.parametrize("error", list(REFUSALS), ids=lambda error: errno.errorcode[error])
@pytest.mark.parametrize("change", list(CHANGES))
def test_refused_at_every_system_call(tmp_path: Path, change: str, error: int) -> None:
    template = tmp_path / "template"
    filled_store(template)
    for number in count(1):
        root = tmp_path / str(number)
        shutil.copytree(template, root)
        store = AdapterStore(root)
        before = state_of(store)
        refusal = Refusal(error, number)
        failure = failure_of(store, change, refusal)
        if not refusal.has_refused:
            break
        if failure is not None:
            assert str(root) not in str(failure)
            assert state_of(store) == before
            assert state_of(AdapterStore(root)) == before
        read_everything(store, but="hurt")
        restarted = AdapterStore(root)
        restarted.repair()
        assert litter_of(root) == []
        if failure is not None:
            CHANGES[change](restarted)
        read_everything(restarted, but="hurt")
        shutil.rmtree(root)
    assert number > 1, "the change makes no such call"


@pytest.mark.usefixtures("no_flushing")
@pytest.mark.parametrize("error", list(REFUSALS), ids=lambda error: errno.errorcode[error])
def test_a_start_that_the_disk_refuses_changes_nothing(tmp_path: Path, error: int) -> None:
    template = tmp_path / "template"
    filled_store(template)
    (template / "tmp/version-half").mkdir()
    before = state_of(AdapterStore(template))
    for number in count(1):
        root = tmp_path / str(number)
        shutil.copytree(template, root)
        refusal = Refusal(error, number)
        with refusal.active(), suppress(StoreFailure):
            store = AdapterStore(root)
            store.repair()
            for digest in store.digests():
                store.quarantine_if_damaged(digest)
        if not refusal.has_refused:
            break
        store = AdapterStore(root)
        assert state_of(store) == before
        read_everything(store, but="hurt")
        assert len(list((root / "versions").iterdir())) + len(list(root.glob("quarantine/*"))) == 5
        shutil.rmtree(root)


def test_a_store_that_may_only_be_read_is_served(tmp_path: Path) -> None:
    root = tmp_path / "store"
    before = state_of(filled_store(root))
    refusals = [Refusal(errno.EROFS, 1), Refusal(errno.EROFS, 1)]
    with refusals[0].active(), pytest.raises(StoreFailure, match="Read-only file system"):
        AdapterStore(root).repair()
    with refusals[1].active(), pytest.raises(StoreFailure, match="Read-only file system"):
        AdapterStore(root).publish("a", adapter_files(seed=5))
    assert state_of(AdapterStore(root)) == before
