"""StoreWatch: tells what others have changed in a store since it was looked at last. Reads no record, no version.

While nothing changes, a look is two system calls: every change is a rename or a removal, which a directory's own time
of change tells. Only after one are the records' times looked at, a microsecond or two each.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.errors import StoreFailure
from adapters.naming import NAME_PATTERN
from adapters.record_files import SETTLED_NANOSECONDS, SUFFIX, Stamp, stamp_from


@dataclass(frozen=True, slots=True)
class StoreChanges:
    """Names whose record is new, another or gone; and whether versions may have come or gone."""

    names: frozenset[str]
    has_other_versions: bool


class StoreWatch:
    """One watcher's view of a store; what was there before the first look is not new. Not safe to share by threads."""

    def __init__(self, *, names: Path, versions: Path) -> None:
        self._names = _WatchedDirectory(names)
        self._versions = _WatchedDirectory(versions)
        self._seen: dict[str, Stamp] = {}
        self.look()

    def look(self) -> StoreChanges:
        """What has changed since the last look. Raises StoreFailure; then the next look tells it."""
        with _failures_told():
            has_other_versions = self._versions.may_have_changed()
            return StoreChanges(self._changed_names(), has_other_versions)

    def _changed_names(self) -> frozenset[str]:
        if not self._names.may_have_changed():
            return frozenset()
        found = self._names.stamps()
        known = self._seen
        self._seen = found
        changed = {name for name, stamp in found.items() if known.get(name) != stamp}
        return frozenset(changed | (known.keys() - found.keys()))


class _WatchedDirectory:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._settled: tuple[int, int] | None = None

    def may_have_changed(self) -> bool:
        """Whether there may have been a change since the last call; for a second after one, there may always be another
        that the directory's time does not show. Raises OSError."""
        looked_at = time.time_ns()
        status = os.stat(self._path)
        stamp = status.st_mtime_ns, status.st_ino
        if stamp == self._settled:
            return False
        self._settled = stamp if stamp[0] < looked_at - SETTLED_NANOSECONDS else None
        return True

    def stamps(self) -> dict[str, Stamp]:
        """The stamp of each record's file. Raises OSError; then the directory counts as changed."""
        try:
            with os.scandir(self._path) as entries:
                return dict(_stamped(entries))
        except OSError:
            self._settled = None
            raise


def _stamped(entries: Iterator[os.DirEntry[str]]) -> Iterator[tuple[str, Stamp]]:
    for entry in entries:
        name = entry.name.removesuffix(SUFFIX)
        if name != entry.name and NAME_PATTERN.fullmatch(name):
            try:
                yield name, stamp_from(entry.stat(follow_symlinks=False))
            except FileNotFoundError:  # removed since it was listed
                continue


@contextmanager
def _failures_told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreFailure(f"the store cannot be watched: {error.strerror or type(error).__name__}") from error
