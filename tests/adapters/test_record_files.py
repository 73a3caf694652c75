"""Records are read again when they have changed, however quickly, and not otherwise."""

import os
import time
from pathlib import Path

import pytest

from adapters.errors import StoreFailure
from adapters.record_files import SETTLED_NANOSECONDS, RecordFiles
from adapters.records import AliasRecord, record_to_json


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "names").mkdir()
    return tmp_path / "names"


def _write(directory: Path, target: str, *, age_ns: int = 0) -> None:
    """Written by another process, so long ago."""
    path = directory / "a.json"
    RecordFiles(directory).write(AliasRecord(name="a", target=target), scratch=directory.parent / "scratch")
    then = time.time_ns() - age_ns
    os.utime(path, ns=(then, then))


def test_changes_within_a_tick_of_the_clock_are_seen(directory: Path) -> None:
    """Names of one length, so that the file's size is the same; its time is that of the file before."""
    files = RecordFiles(directory)
    now = time.time_ns()
    for number in range(10, 60):
        _write(directory, f"target-{number}")
        os.utime(directory / "a.json", ns=(now, now))
        assert files.read("a") == AliasRecord(name="a", target=f"target-{number}")


def test_a_settled_record_is_read_once_and_again_when_it_changes(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = RecordFiles(directory)
    _write(directory, "b", age_ns=2 * SETTLED_NANOSECONDS)
    first = files.read("a")
    reads: list[Path] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or read_bytes(path))  # type: ignore[func-returns-value]
    assert files.read("a") is first
    assert list(files.read_all()) == [first]
    assert reads == []
    _write(directory, "c", age_ns=2 * SETTLED_NANOSECONDS)
    reads.clear()
    assert files.read("a") == AliasRecord(name="a", target="c")
    assert len(reads) == 1


def test_what_is_gone_or_damaged_is_not_remembered(directory: Path) -> None:
    files = RecordFiles(directory)
    _write(directory, "b", age_ns=2 * SETTLED_NANOSECONDS)
    good = files.read("a")
    (directory / "a.json").write_bytes(b"{")
    with pytest.raises(StoreFailure, match="damaged"):
        files.read("a")
    assert list(files.read_all()) == []
    assert good is not None
    (directory / "a.json").write_bytes(record_to_json(good))
    assert files.read("a") == good
    (directory / "a.json").unlink()
    assert files.read("a") is None
    assert files.names() == []
    directory.rmdir()
    with pytest.raises(StoreFailure, match="cannot be listed"):
        list(files.read_all())
