"""VersionFiles: the directories of a store's versions, and the quarantine of those that changed. Knows no names.

Everything that writes is called by the holder of the store's lock. A version appears and goes by one rename.
"""

import errno
import logging
import os
import shutil
from collections.abc import Mapping, Set
from pathlib import Path
from uuid import uuid4

from adapters.check_sums import MAX_SUMS_BYTES, SUMS_FILE, sums_of
from adapters.durable_files import flush_directory, write_durably
from adapters.errors import AdapterDamaged, AdapterInvalid, AdapterNotFound, StoreFailure
from adapters.files import CARD_FILE, AdapterFiles, read_adapter_directory, read_beside
from adapters.manifest import MANIFEST_FILE, AdapterManifest
from adapters.weights import Adapter, read_adapter

WHAT_TO_DO = "publish it again, roll back to another version, or remove the name"

logger = logging.getLogger(__name__)


class VersionFiles:
    """Versions by digest, in `versions`; damaged ones go to `quarantine`, what is being written lies in `scratch`."""

    def __init__(self, *, versions: Path, quarantine: Path, scratch: Path) -> None:
        self._versions = versions
        self._quarantine = quarantine
        self._scratch = scratch

    def path_of(self, digest: str) -> Path:
        """The directory of one version."""
        return self._versions / digest

    def digests(self) -> list[str]:
        """Every version that is there, sorted. Raises StoreFailure."""
        try:
            return sorted(os.listdir(self._versions))
        except OSError as error:
            raise StoreFailure(f"the store cannot be listed: {error.strerror}") from error

    def read(self, name: str, digest: str) -> Adapter:
        """Read one version. Raises as `read_files`."""
        return self.read_files(name, digest)[0]

    def read_files(self, name: str, digest: str) -> tuple[Adapter, AdapterFiles]:
        """Read one version and its files, and check that each byte of them is what was published.

        Both PEFT files and the maker's facts have the version's digest, and hotprompt.json and the card their check
        sums, which a version of an older store may lack.

        Raises AdapterNotFound; AdapterDamaged for a version that has changed on the disk or is in quarantine;
        StoreFailure where the disk, not the version, is to blame.
        """
        label = f"{name!r} version {digest[:12]}"
        try:
            files = read_adapter_directory(self.path_of(digest))
            adapter = read_adapter(name, files)
            sums = read_beside(self.path_of(digest), SUMS_FILE, limit=MAX_SUMS_BYTES)
        except AdapterInvalid as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno != errno.ELOOP:
                raise StoreFailure(f"{label} cannot be read: {cause.strerror}") from cause
            if _is_there(self.path_of(digest)):
                raise AdapterDamaged(f"{label} is damaged on the disk: {error}; {WHAT_TO_DO}") from error
            if self.is_quarantined(digest):
                raise AdapterDamaged(f"{label} is damaged and in quarantine: {WHAT_TO_DO}") from None
            raise AdapterNotFound(f"adapter {name!r} has no version {digest[:12]}") from None
        if adapter.manifest.digest != digest:
            raise AdapterDamaged(f"{label} is damaged on the disk: its digest has changed; {WHAT_TO_DO}")
        if sums is not None and sums != _sums_of(files.by_name()):
            raise AdapterDamaged(f"{label} is damaged on the disk: its check sums have changed; {WHAT_TO_DO}")
        return adapter, files

    def is_whole(self, digest: str) -> bool:
        """Whether a version is there with the content of its digest. Raises StoreFailure where the disk refuses."""
        try:
            self.read("version", digest)
        except (AdapterNotFound, AdapterDamaged):
            return False
        return True

    def is_known(self, digest: str) -> bool:
        """Whether a version is there, or in quarantine. Raises StoreFailure."""
        return _is_there(self.path_of(digest)) or _is_there(self._quarantine / digest)

    def is_quarantined(self, digest: str) -> bool:
        """Whether a version was moved to the quarantine and not published again since. Raises StoreFailure."""
        return _is_there(self._quarantine / digest) and not _is_there(self.path_of(digest))

    def keep(self, manifest: AdapterManifest, files: AdapterFiles) -> None:
        """Put a version in its place. One that is whole stays; a damaged one is replaced. Raises OSError."""
        target = self.path_of(manifest.digest)
        if self.is_whole(manifest.digest):
            return
        staging = self._scratch / f"version-{uuid4().hex}"
        staging.mkdir()
        kept = files.by_name() | {MANIFEST_FILE: manifest.to_json()}
        for file_name, content in (kept | {SUMS_FILE: _sums_of(kept)}).items():
            write_durably(staging / file_name, content)
        flush_directory(staging)
        if target.exists():
            self.quarantine(manifest.digest)
        os.rename(staging, target)
        flush_directory(self._versions)

    def quarantine(self, digest: str) -> None:
        """Move a damaged version out of the way, where somebody can look at it. Raises OSError."""
        self._quarantine.mkdir(exist_ok=True)
        place = self._quarantine / digest
        if place.exists():
            os.rename(place, self._scratch / f"quarantined-{uuid4().hex}")
        os.rename(self.path_of(digest), place)
        flush_directory(self._quarantine)
        flush_directory(self._versions)

    def drop_all_but(self, named: Set[str]) -> None:
        """Delete versions that no name has, and what the quarantine holds of versions that are whole.

        They go by a rename, so none is ever half there. Raises OSError, StoreFailure.
        """
        for directory in self._versions.iterdir():
            if directory.name not in named:
                os.rename(directory, self._scratch / f"removed-{uuid4().hex}")
        flush_directory(self._versions)
        if self._quarantine.is_dir():
            for directory in self._quarantine.iterdir():
                if not (directory.name in named and self.is_quarantined(directory.name)):
                    os.rename(directory, self._scratch / f"removed-{uuid4().hex}")
        self.clear_scratch()

    def clear_scratch(self) -> None:
        """Delete what a crashed writer left. Raises OSError."""
        for leftover in self._scratch.iterdir():
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()


def _sums_of(files: Mapping[str, bytes]) -> bytes:
    """Of what the digest of a version does not cover, or not byte by byte."""
    return sums_of({name: files[name] for name in (MANIFEST_FILE, CARD_FILE) if name in files})


def _is_there(path: Path) -> bool:
    """Raises StoreFailure where the disk does not tell."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise StoreFailure(f"the store cannot be read: {error.strerror}") from error
    return True
