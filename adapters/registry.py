"""AdapterRegistry: which adapters a server holds in memory, over one store and one base model. Knows no engine."""

import dataclasses
import logging
import threading
from contextlib import suppress

from adapters.errors import AdapterError, AdapterNotFound
from adapters.files import AdapterFiles
from adapters.manifest import BaseIdentity
from adapters.naming import check_name
from adapters.records import AliasRecord, NameRecord
from adapters.residency import Residency, ResidentAdapters
from adapters.store import AdapterStore
from adapters.tensor_file import WEIGHTS_FILE
from adapters.verification import Verification
from adapters.weights import Adapter, check_compatible, read_adapter

DEFAULT_BUDGET_BYTES = 1 << 30

logger = logging.getLogger(__name__)


class AdapterRegistry:
    """Resolves names at every request, and keeps the adapters used last in memory, within a budget of bytes.

    Safe to call from any thread. Adapters are immutable and addressed by digest: one that leaves the registry lives on
    in the sequences that hold it, so nothing needs to be counted or released. Pinned adapters do not leave. What other
    processes change in the store is there at the next use; `follow` and `free_removed` do not wait for it.
    """

    def __init__(self, store: AdapterStore, base: BaseIdentity, *, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        self.store = store
        self.base = base
        self._lock = threading.Lock()  # guards the three below; never held while the disk is read
        self._resident = ResidentAdapters(budget_bytes=budget_bytes)
        self._pinned: dict[str, str] = {}  # the current digest of each pinned name
        self._loading: dict[str, threading.Lock] = {}  # by digest, while somebody loads it

    def get(self, reference: str, *, asker: str | None = None) -> Adapter:
        """The adapter that a reference stands for now, to an asker if one is named, from memory or from the store.

        Raises AdapterNotFound, AdapterNameInvalid, AdapterIncompatible; StoreFailure when it is damaged on the disk.
        """
        record, digest = self.store.lookup(reference, asker=asker)
        self._note_pin(record)
        adapter = self._recall(digest)
        if adapter is None:
            adapter = self._load(record.name, digest)
        return _under_name(record.name, adapter)

    def publish(
        self,
        name: str,
        files: AdapterFiles,
        *,
        checked: Adapter | None = None,
        verification: Verification | None = None,
        source: str | None = None,
    ) -> Adapter:
        """Check files against this base model, publish them to the store, and hold them in memory.

        `checked` is what `read_adapter` made of this name and these files, for whoever has it.
        Raises as `AdapterStore.publish`, and AdapterIncompatible; then neither store nor registry has changed.
        """
        check_name(name, base_name=self.base.name)
        checked = checked or read_adapter(name, files)
        check_compatible(checked.manifest, self.base)
        adapter = self.store.publish(name, files, checked=checked, verification=verification, source=source)
        with suppress(AdapterNotFound):  # somebody removed it again
            self._note_pin(self.store.record(name))
        self._keep(adapter)
        return adapter

    def remove(self, name: str) -> None:
        """Remove a name from the store; memory of versions that no name has any more is freed.

        Raises AdapterNotFound, AdapterInUse when an alias stands for the name.
        """
        self.store.remove(name)
        named = {version.digest for record in self.store.names() for version in record.versions}
        self._set_pin(name, None)
        with self._lock:
            for digest in self._resident.digests():
                if digest not in named:
                    self._resident.drop(digest)

    def pin(self, name: str, *, pinned: bool) -> NameRecord:
        """Keep an adapter resident from now on, or no longer. Raises as `get`; then its pin has not changed."""
        if pinned:
            self.get(name)
        record = self.store.pin(name, pinned=pinned)
        self._note_pin(record)
        return record

    def rollback(self, name: str, digest_prefix: str | None = None) -> NameRecord:
        """Make a name stand for an earlier version, from the next request on. Raises AdapterNotFound."""
        record = self.store.rollback(name, digest_prefix)
        self._note_pin(record)
        return record

    def alias(self, name: str, target: str) -> AliasRecord:
        """Let `name` stand for `target`. Raises as `AdapterStore.alias`, and AdapterNameInvalid for the base's name."""
        check_name(name, base_name=self.base.name)
        return self.store.alias(name, target)

    def follow(self, name: str) -> list[Adapter]:
        """Take over what has become of a name in the store: its pin, and into memory the versions that it answers with.

        What nobody has asked for here yet takes only memory that is free, unless it is pinned. Returns the adapters
        whose virtual tokens are not known here yet. Raises AdapterNotFound for a name that is gone, whose pin is
        forgotten then; and as `get`.
        """
        try:
            record = self.store.record(name)
        except AdapterNotFound:
            self._set_pin(name, None)
            raise
        if record.name != name:  # an alias: what it stands for is followed by its own name
            self._set_pin(name, None)
            return []
        is_pin_new = self._note_pin(record) and record.pinned
        wanted = {record.current: is_pin_new}
        if record.canary is not None:
            wanted[record.canary.digest] = False
        return [
            self.get(f"{name}@{digest}")
            for digest, is_due in wanted.items()
            if is_due or (not self.is_resident(digest) and self._has_room(digest))
        ]

    def free_removed(self) -> None:
        """Let go of what is in memory and in the store no more. Raises StoreFailure."""
        with self._lock:
            digests = self._resident.digests()
        removed = [digest for digest in digests if not self.store.has_version(digest)]
        with self._lock:
            for digest in removed:
                self._resident.drop(digest)

    def load_pinned(self) -> list[Adapter]:
        """Bring every pinned adapter into memory and return them; one that cannot be is left out with a warning."""
        records = [record for record in self.store.names() if record.pinned]
        return [adapter for record in records if (adapter := self._get_or_warn(record.name)) is not None]

    def pinned_digests(self) -> set[str]:
        """The current versions of the names that are pinned, as far as they were used or pinned here."""
        with self._lock:
            return set(self._pinned.values())

    @property
    def num_bytes(self) -> int:
        """What the adapters in memory take; those that running sequences alone still hold are not among them."""
        with self._lock:
            return self._resident.num_bytes

    def residency(self) -> Residency:
        """What is in memory now."""
        with self._lock:
            return self._resident.snapshot()

    def is_resident(self, digest: str) -> bool:
        """Whether that version is in memory now."""
        with self._lock:
            return digest in self._resident

    def _get_or_warn(self, name: str) -> Adapter | None:
        try:
            return self.get(name)
        except AdapterError as error:
            logger.warning("the pinned adapter %r cannot be loaded: %s", name, error)
            return None

    def _load(self, name: str, digest: str) -> Adapter:
        """Read a version from the store; threads that want the same one wait for the first."""
        with self._lock:
            turn = self._loading.setdefault(digest, threading.Lock())
        with turn:
            try:
                if (adapter := self._recall(digest)) is not None:
                    return adapter
                adapter = self.store.read(name, digest)
                check_compatible(adapter.manifest, self.base)
                self._keep(adapter)
                with self._lock:
                    self._resident.num_loads += 1
                return adapter
            finally:
                with self._lock:
                    self._loading.pop(digest, None)

    def _has_room(self, digest: str) -> bool:
        """Whether a version fits without another one leaving; in memory it takes at most twice its file."""
        try:
            size = 2 * (self.store.path_of(digest) / WEIGHTS_FILE).stat().st_size
        except OSError:  # whoever reads it says what is wrong
            return True
        with self._lock:
            return size <= self._resident.free_bytes

    def _recall(self, digest: str) -> Adapter | None:
        with self._lock:
            return self._resident.get(digest)

    def _keep(self, adapter: Adapter) -> None:
        digest = adapter.manifest.digest
        with self._lock:
            self._resident.keep(adapter)
        if not self.store.path_of(digest).is_dir():  # removed since it was read: nobody else would let go of it
            with self._lock:
                self._resident.drop(digest)

    def _note_pin(self, record: NameRecord) -> bool:
        """Whether that was new."""
        pinned = record.current if record.pinned else None
        is_new = self._set_pin(record.name, pinned)
        if is_new and pinned is not None:
            try:
                self.store.record(record.name)
            except AdapterNotFound:  # removed since its record was read
                self._set_pin(record.name, None)
        return is_new

    def _set_pin(self, name: str, digest: str | None) -> bool:
        """Pin a name's digest and no other one, or none at all; False where that was so already."""
        with self._lock:
            known = self._pinned.pop(name, None)
            if digest is not None:
                self._pinned[name] = digest
            if known == digest:
                return False
            if digest is not None:
                self._resident.pin(digest)
            if known is not None:
                self._resident.unpin(known)
        return True


def _under_name(name: str, adapter: Adapter) -> Adapter:
    """The same adapter under the name that was asked for: two names may have one content, which is in memory once."""
    if adapter.manifest.name == name:
        return adapter
    return dataclasses.replace(adapter, manifest=adapter.manifest.model_copy(update={"name": name}))
