"""AdapterStore: a directory of published adapters, shared by trainer and server. Knows no base model.

    versions/<digest>/   the files of one adapter, never changed once they are there
    names/<name>.json    the versions of a name and which one is current, or what an alias stands for
    quarantine/<digest>/ a version that no longer had the content of its digest
    tmp/                 what is being written; a leftover of a crash, removed by the next writer

A reader sees an old state or a new one, never a mixture: a version's directory and a name's record each appear by one
rename, after their bytes and before their directory entry were flushed to the disk. Writers take turns by a lock file.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.durable_files import flush_directory
from adapters.errors import AdapterInUse, AdapterNotFound, StoreFailure
from adapters.files import CARD_FILE, AdapterFiles
from adapters.naming import AdapterReference, check_name
from adapters.record_files import RecordFiles
from adapters.records import AliasRecord, NameRecord, Version
from adapters.store_lock import READ_ONLY, StoreLock
from adapters.store_watch import StoreWatch
from adapters.verification import Verification
from adapters.version_files import WHAT_TO_DO, VersionFiles
from adapters.weights import Adapter, read_adapter

__all__ = ["AdapterStore", "AliasRecord", "DamagedName", "NameRecord", "Version", "read_card"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DamagedName:
    """A name that cannot be served as it stands, and what to do about it."""

    name: str
    problem: str


class AdapterStore:
    """Reads and publishes adapters under one root directory, which is created when it is missing.

    Any number of processes may share it. Every look-up asks the disk, by one `lstat`, whether the record is still
    the one that is known: what one process changes, the others answer with from their next request on. Where a process
    may only read the directory, whatever changes it raises StoreReadOnly.
    """

    def __init__(self, root: Path) -> None:
        names, versions = root / "names", root / "versions"
        self._scratch = root / "tmp"
        try:
            _make_directories(root, names, versions, self._scratch)
        except OSError as error:
            is_readable = names.is_dir() and versions.is_dir()
            if not (is_readable and error.errno in READ_ONLY):  # a reader needs nothing else
                raise StoreFailure(f"store {root} cannot be created: {error.strerror}") from error
        self._names_directory, self._versions_directory = names, versions
        self._lock = StoreLock(root / "lock")
        self._records = RecordFiles(names)
        self._versions = VersionFiles(versions=versions, quarantine=root / "quarantine", scratch=self._scratch)

    # -- reading ----------------------------------------------------------------------------------------------------

    def records(self) -> list[NameRecord | AliasRecord]:
        """Every adapter and alias, by name; a damaged record is left out with a warning. Raises StoreFailure."""
        return list(self._records.read_all())

    def names(self) -> list[NameRecord]:
        """Every adapter, by name; aliases are not among them, and a damaged record is left out with a warning."""
        return [record for record in self._records.read_all() if isinstance(record, NameRecord)]

    def aliases(self) -> list[AliasRecord]:
        """Every alias, by name; a damaged record is left out with a warning."""
        return [record for record in self._records.read_all() if isinstance(record, AliasRecord)]

    def damaged_records(self) -> list[DamagedName]:
        """Names whose record cannot be read."""
        return [
            DamagedName(name, "its record is damaged: remove the name, then publish the adapter again")
            for name in self._records.names()
            if self._is_damaged(name)
        ]

    def damaged(self) -> list[DamagedName]:
        """Names that cannot be served: their record is damaged, or their current version in quarantine."""
        return self.damaged_records() + [
            DamagedName(record.name, f"version {record.current[:12]} is damaged and in quarantine: {WHAT_TO_DO}")
            for record in self.names()
            if self._versions.is_quarantined(record.current)
        ]

    def record(self, name: str) -> NameRecord:
        """The record that a name, or an alias of it, stands for.

        Raises AdapterNotFound, AdapterNameInvalid; StoreFailure when the record is damaged.
        """
        return self.lookup(check_name(name))[0]

    def resolve(self, text: str) -> tuple[str, str]:
        """`(name, digest)` that a reference (`name`, `name@digest-prefix`, alias) stands for. Raises as `lookup`."""
        record, digest = self.lookup(text)
        return record.name, digest

    def lookup(self, text: str, *, asker: str | None = None) -> tuple[NameRecord, str]:
        """The record of the name that a reference stands for now, and the digest it means, to an asker if one is named.

        Raises AdapterNotFound, AdapterNameInvalid; StoreFailure when the record is damaged.
        """
        reference = AdapterReference.parse(text)
        record = self._records.read(reference.name)
        if isinstance(record, AliasRecord):
            target = record.reference
            reference = AdapterReference(target.name, reference.digest_prefix or target.digest_prefix)
            record = self._records.read(reference.name)
        if not isinstance(record, NameRecord):
            raise AdapterNotFound(f"no adapter is named {text!r}")
        if reference.digest_prefix is None:
            return record, record.digest_for(asker)
        return record, record.digest_of(reference.digest_prefix)

    def read(self, name: str, digest: str) -> Adapter:
        """Read one version from the disk, and check that its content still has its digest.

        Raises AdapterNotFound; AdapterDamaged for a version that has changed on the disk or is in quarantine;
        StoreFailure where the disk refuses.
        """
        return self._versions.read(name, digest)

    def read_files(self, name: str, digest: str) -> tuple[Adapter, AdapterFiles]:
        """One version with its files as they lie on the disk. Raises as `read`."""
        return self._versions.read_files(name, digest)

    def path_of(self, digest: str) -> Path:
        """The directory of one version."""
        return self._versions.path_of(digest)

    def has_version(self, digest: str) -> bool:
        """Whether a version is there, or in quarantine. Raises StoreFailure."""
        return self._versions.is_known(digest)

    def watch(self) -> StoreWatch:
        """Tells from now on what has changed. Raises StoreFailure."""
        return StoreWatch(names=self._names_directory, versions=self._versions_directory)

    # -- writing ----------------------------------------------------------------------------------------------------

    def publish(
        self,
        name: str,
        files: AdapterFiles,
        *,
        checked: Adapter | None = None,
        verification: Verification | None = None,
        source: str | None = None,
    ) -> Adapter:
        """Check the files, keep them as a version, and make `name` stand for it; atomic, and durable on return.

        `checked` is what `read_adapter` made of this name and these files, which may be large, for whoever has it.
        `verification` is kept with the version: what its probes said to whoever publishes it; and so is `source`,
        where it was fetched from.

        Raises AdapterNameInvalid, AdapterInvalid, AdapterInUse (the name is an alias); StoreFailure when the disk
        refuses, with every name as it was.
        """
        check_name(name)
        adapter = checked or read_adapter(name, files)
        version = Version(
            digest=adapter.manifest.digest, created=int(time.time()), verification=verification, source=source
        )
        with self._writing():
            record = self._records.read(name)
            if isinstance(record, AliasRecord):
                raise AdapterInUse(f"name: {name!r} is an alias of {record.target!r}; remove the alias first")
            self._versions.keep(adapter.manifest, files)
            if record is None:
                self._records.write(
                    NameRecord(name=name, current=version.digest, versions=(version,)), scratch=self._scratch
                )
            elif (changed := record.with_version(version)) != record:
                self._records.write(changed, scratch=self._scratch)
        return adapter

    def remove(self, name: str) -> None:
        """Forget a name or an alias, and the versions that no name has any more; a damaged record may be removed too.

        Raises AdapterNotFound, AdapterInUse when an alias stands for the name.
        """
        check_name(name)
        with self._writing():
            if not self._records.exists(name):
                raise AdapterNotFound(f"no adapter is named {name!r}")
            users = [alias.name for alias in self.aliases() if alias.reference.name == name]
            if users:
                raise AdapterInUse(f"name: the alias {users[0]!r} stands for {name!r}; remove or move the alias first")
            self._records.remove(name, scratch=self._scratch)
            self._collect()

    def pin(self, name: str, *, pinned: bool) -> NameRecord:
        """Ask servers to keep an adapter resident, or no longer. Raises AdapterNotFound."""
        return self._change(name, lambda record: record.model_copy(update={"pinned": pinned}))

    def rollback(self, name: str, digest_prefix: str | None = None) -> NameRecord:
        """Make a name stand for an earlier version: the one named, or the one published before the current one.

        Raises AdapterNotFound when there is no such version.
        """
        return self._change(name, lambda record: record.rolled_back(digest_prefix))

    def canary(self, name: str, digest_prefix: str, percent: int) -> NameRecord:
        """Let another version answer `percent` of a name's askers. Raises AdapterNotFound, CanaryInvalid."""
        return self._change(name, lambda record: record.with_canary(digest_prefix, percent))

    def end_canary(self, name: str) -> NameRecord:
        """Let a name's current version answer everybody. Raises AdapterNotFound."""
        return self._change(name, NameRecord.without_canary)

    def note_verification(self, name: str, digest: str, verification: Verification) -> NameRecord:
        """Keep what a version's probes said. Raises AdapterNotFound."""
        return self._change(name, lambda record: record.with_verification(digest, verification))

    def alias(self, name: str, target: str) -> AliasRecord:
        """Let `name` stand for `target` (`name` or `name@digest-prefix`), or move it there.

        Raises AdapterNotFound when the target does not exist, AdapterInUse when `name` is an adapter's own.
        """
        check_name(name)
        with self._writing():
            if isinstance(self._records.read(name), NameRecord):
                raise AdapterInUse(f"alias: {name!r} is the name of an adapter")
            target_name, digest = self.resolve(target)
            alias = AliasRecord(name=name, target=f"{target_name}@{digest}" if "@" in target else target_name)
            self._records.write(alias, scratch=self._scratch)
        return alias

    def require_writable(self) -> None:
        """Raises StoreReadOnly where this process may not write, StoreFailure where the disk refuses."""
        self._lock.check()

    def repair(self) -> None:
        """Clear what a crash left: files half written, and versions that no name has. Reads no version.

        Raises StoreFailure when the disk refuses, or the store may only be read.
        """
        with self._writing():
            self._collect()

    def digests(self) -> list[str]:
        """Every version that is there, sorted. Raises StoreFailure."""
        return self._versions.digests()

    def quarantine_if_damaged(self, digest: str) -> bool:
        """Read a version, and move it to the quarantine if it has lost its content.

        Holds the lock only where something is to be moved. Raises StoreFailure when the disk refuses.
        """
        if self._versions.is_whole(digest):
            return False
        with self._writing():  # look once more: it may have been published again, or removed
            if not self.path_of(digest).is_dir() or self._versions.is_whole(digest):
                return False
            self._versions.quarantine(digest)
        return True

    # -- the disk ---------------------------------------------------------------------------------------------------

    def _change(self, name: str, change: Callable[[NameRecord], NameRecord]) -> NameRecord:
        with self._writing():
            changed = change(self.record(name))
            self._records.write(changed, scratch=self._scratch)
        return changed

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the store's lock against other processes and threads; clear what a crashed writer left."""
        with self._lock.held():
            self._versions.clear_scratch()
            yield

    def _is_damaged(self, name: str) -> bool:
        try:
            self._records.read(name)
        except StoreFailure:
            return True
        return False

    def _collect(self) -> None:
        """Delete versions that no name has. The names are as they should be: what goes wrong here is told in the log.

        A damaged record may mean any of the versions: while there is one, nothing is deleted.
        """
        try:
            records = [self._records.read(name) for name in self._records.names()]
        except StoreFailure as error:
            logger.warning("%s; until then no version is deleted from the store", error)
            return
        named = {version.digest for record in records if isinstance(record, NameRecord) for version in record.versions}
        try:
            self._versions.drop_all_but(named)
        except (OSError, StoreFailure) as error:
            logger.warning("versions that no name has could not be deleted: %s", error)


def _make_directories(root: Path, *directories: Path) -> None:
    missing = [path for path in directories if not path.is_dir()]
    for directory in missing:
        directory.mkdir(parents=True, exist_ok=True)
    if missing:
        flush_directory(root)


def read_card(store: AdapterStore, digest: str) -> str | None:
    """The model card of one version, where it has one."""
    path = store.path_of(digest) / CARD_FILE
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
