"""AdapterStore: a directory of published adapters, shared by trainer and server. Knows no base model.

    versions/<digest>/   the files of one adapter, never changed once they are there
    names/<name>.json    the versions of a name and which one is current, or what an alias stands for
    tmp/                 what is being written; a leftover of a crash, removed by the next writer

A reader sees an old state or a new one, never a mixture: a version's directory and a name's record each appear by one
rename, after their bytes and before their directory entry were flushed to the disk. Writers take turns by a lock file.
"""

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from adapters.durable_files import flush_directory, write_durably
from adapters.errors import AdapterDamaged, AdapterError, AdapterInUse, AdapterInvalid, AdapterNotFound, StoreFailure
from adapters.files import CARD_FILE, AdapterFiles, read_adapter_directory
from adapters.manifest import MANIFEST_FILE, AdapterManifest
from adapters.naming import AdapterReference, check_name
from adapters.record_files import RecordFiles
from adapters.records import AliasRecord, NameRecord, Version
from adapters.verification import Verification
from adapters.weights import Adapter, read_adapter

__all__ = ["AdapterStore", "AliasRecord", "NameRecord", "Version", "read_card"]

logger = logging.getLogger(__name__)


class AdapterStore:
    """Reads and publishes adapters under one root directory, which is created when it is missing."""

    def __init__(self, root: Path) -> None:
        self._versions = root / "versions"
        names = root / "names"
        self._scratch = root / "tmp"
        self._lock_file = root / "lock"
        try:
            missing = [path for path in (self._versions, names, self._scratch) if not path.is_dir()]
            for directory in missing:
                directory.mkdir(parents=True, exist_ok=True)
            if missing:
                flush_directory(root)
        except OSError as error:
            raise StoreFailure(f"store {root} cannot be created: {error.strerror}") from error
        self._records = RecordFiles(names)

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

    def damaged_names(self) -> list[str]:
        """Names whose record cannot be read."""
        return [name for name in self._records.names() if self._is_damaged(name)]

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

        Raises AdapterNotFound, and AdapterDamaged for a version that has changed on the disk.
        """
        directory = self.path_of(digest)
        try:
            adapter = read_adapter(name, read_adapter_directory(directory))
        except AdapterInvalid as error:
            if not directory.is_dir():
                raise AdapterNotFound(f"adapter {name!r} has no version {digest[:12]}") from None
            raise AdapterDamaged(f"{name!r} version {digest[:12]} is damaged on the disk: {error}") from error
        if adapter.manifest.digest != digest:
            raise AdapterDamaged(f"{name!r} version {digest[:12]} is damaged on the disk: its digest has changed")
        return adapter

    def path_of(self, digest: str) -> Path:
        """The directory of one version."""
        return self._versions / digest

    # -- writing ----------------------------------------------------------------------------------------------------

    def publish(self, name: str, files: AdapterFiles, *, verification: Verification | None = None) -> Adapter:
        """Check the files, keep them as a version, and make `name` stand for it; atomic, and durable on return.

        `verification` is kept with the version: what its probes said to whoever publishes it.

        Raises AdapterNameInvalid, AdapterInvalid, AdapterInUse (the name is an alias); StoreFailure when the disk
        refuses, with every name as it was.
        """
        check_name(name)
        adapter = read_adapter(name, files)
        version = Version(digest=adapter.manifest.digest, created=int(time.time()), verification=verification)
        with self._writing():
            record = self._records.read(name)
            if isinstance(record, AliasRecord):
                raise AdapterInUse(f"name: {name!r} is an alias of {record.target!r}; remove the alias first")
            self._keep_version(adapter.manifest, files)
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
            self._records.remove(name)
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

    # -- the disk ---------------------------------------------------------------------------------------------------

    def _change(self, name: str, change: Callable[[NameRecord], NameRecord]) -> NameRecord:
        with self._writing():
            changed = change(self.record(name))
            self._records.write(changed, scratch=self._scratch)
        return changed

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the store's lock against other processes and threads; clear what a crashed writer left."""
        try:
            with open(self._lock_file, "a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._clear_scratch()
                yield
        except OSError as error:
            raise StoreFailure(f"the store cannot be written: {error.strerror or type(error).__name__}") from error

    def _keep_version(self, manifest: AdapterManifest, files: AdapterFiles) -> None:
        """Put a version in its place. One that is there already stays, unless it is damaged: then it is replaced."""
        target = self.path_of(manifest.digest)
        if self._is_whole(manifest.digest):
            return
        staging = self._scratch / f"version-{uuid4().hex}"
        staging.mkdir()
        for file_name, content in (files.by_name() | {MANIFEST_FILE: manifest.to_json()}).items():
            write_durably(staging / file_name, content)
        flush_directory(staging)
        if target.exists():
            os.rename(target, self._scratch / f"damaged-{uuid4().hex}")
        os.rename(staging, target)
        flush_directory(self._versions)

    def _is_whole(self, digest: str) -> bool:
        try:
            self.read("version", digest)
        except AdapterError:
            return False
        return True

    def _is_damaged(self, name: str) -> bool:
        try:
            self._records.read(name)
        except StoreFailure:
            return True
        return False

    def _collect(self) -> None:
        """Delete versions that no name has. They leave `versions/` by a rename, so none is ever half there.

        A damaged record may mean any of them: while there is one, nothing is deleted.
        """
        try:
            records = [self._records.read(name) for name in self._records.names()]
        except StoreFailure as error:
            logger.warning("%s; until then no version is deleted from the store", error)
            return
        named = {version.digest for record in records if isinstance(record, NameRecord) for version in record.versions}
        for directory in self._versions.iterdir():
            if directory.name not in named:
                os.rename(directory, self._scratch / f"removed-{uuid4().hex}")
        flush_directory(self._versions)
        self._clear_scratch()

    def _clear_scratch(self) -> None:
        for leftover in self._scratch.iterdir():
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()


def read_card(store: AdapterStore, digest: str) -> str | None:
    """The model card of one version, where it has one."""
    path = store.path_of(digest) / CARD_FILE
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
