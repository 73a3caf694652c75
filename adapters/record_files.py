"""RecordFiles: the directory of a store's records, a file for each name, read once and again when it has changed.

Knows no versions and no locks. A record is replaced by a rename, so another inode, time or size tells that it is new.
"""

import errno
import logging
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from adapters.durable_files import flush_directory, write_durably
from adapters.errors import StoreFailure
from adapters.naming import NAME_PATTERN
from adapters.records import AliasRecord, NameRecord, record_from_json, record_to_json

Record = NameRecord | AliasRecord
Stamp = tuple[int, int, int]
"""Time of the last change in nanoseconds, inode and size of a file."""

SUFFIX = ".json"
SETTLED_NANOSECONDS = 1_000_000_000
"""A file changed later than this before it was read is read again: two changes within one tick of a file system's clock
look like one."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Known:
    record: Record
    stamp: Stamp


class RecordFiles:
    """Reads and replaces the records in one directory. Safe to call from any thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()  # guards the dict; never held while the disk is read

    def names(self) -> list[str]:
        """Every name that has a file, sorted. Raises StoreFailure."""
        try:
            stems = [file.removesuffix(SUFFIX) for file in os.listdir(self._directory) if file.endswith(SUFFIX)]
        except OSError as error:
            raise StoreFailure(f"the store cannot be listed: {error.strerror}") from error
        return sorted(stem for stem in stems if NAME_PATTERN.fullmatch(stem))

    def exists(self, name: str) -> bool:
        """Whether a name has a file, damaged or not."""
        return self._path(name).is_file()

    def read(self, name: str) -> Record | None:
        """The record of a name, or None where there is none. Raises StoreFailure when it is damaged."""
        path = self._path(name)
        try:
            stamp = _stamp_of(path)
            known = self._known.get(name)
            if known is not None and known.stamp == stamp:
                return known.record
            read_at = time.time_ns()
            record = record_from_json(name, path.read_bytes())
            self._note(
                name, record, stamp, is_settled=stamp[0] < read_at - SETTLED_NANOSECONDS and stamp == _stamp_of(path)
            )
        except FileNotFoundError:
            self._forget(name)
            return None
        except OSError as error:
            raise StoreFailure(f"the record of {name!r} cannot be read: {error.strerror}") from error
        return record

    def read_all(self) -> Iterator[Record]:
        """Every record, by name; a damaged one is left out with a warning."""
        names = self.names()
        self._forget_all_but(set(names))
        for name in names:
            try:
                record = self.read(name)
            except StoreFailure as error:
                logger.warning("%s", error)
                continue
            if record is not None:
                yield record

    def write(self, record: Record, *, scratch: Path) -> None:
        """Replace or make a record, atomically and durably, by way of a directory of the same disk.

        Raises OSError; then the record is as it was.
        """
        path = self._path(record.name)
        before = self._content(path)
        staging = scratch / f"record-{uuid4().hex}"
        write_durably(staging, record_to_json(record))
        os.replace(staging, path)
        with self._taken_back(path, before, scratch):
            flush_directory(self._directory)

    def remove(self, name: str, *, scratch: Path) -> None:
        """Remove a record, durably. Raises OSError; then the record is as it was."""
        path = self._path(name)
        before = self._content(path)
        os.unlink(path)
        with self._taken_back(path, before, scratch):
            flush_directory(self._directory)

    @contextmanager
    def _taken_back(self, path: Path, before: bytes | None, scratch: Path) -> Iterator[None]:
        """Put the content from before back where the change cannot be made durable: it is then told as not made."""
        try:
            yield
        except OSError:
            if before is None:
                os.unlink(path)
            else:
                staging = scratch / f"record-{uuid4().hex}"
                write_durably(staging, before)
                os.replace(staging, path)
            raise

    def _content(self, path: Path) -> bytes | None:
        try:
            return None if path.is_symlink() else path.read_bytes()
        except FileNotFoundError:
            return None

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}{SUFFIX}"

    def _note(self, name: str, record: Record, stamp: Stamp, *, is_settled: bool) -> None:
        with self._lock:
            if is_settled:
                self._known[name] = _Known(record, stamp)
            else:
                self._known.pop(name, None)

    def _forget(self, name: str) -> None:
        with self._lock:
            self._known.pop(name, None)

    def _forget_all_but(self, names: set[str]) -> None:
        with self._lock:
            for name in self._known.keys() - names:
                del self._known[name]


def stamp_from(status: os.stat_result) -> Stamp:
    """The stamp of a file that was looked at."""
    return status.st_mtime_ns, status.st_ino, status.st_size


def _stamp_of(path: Path) -> Stamp:
    """Raises OSError, also for a link: none is followed."""
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return stamp_from(status)
