"""AdapterLoad: of which adapters sequences wait and run, by digest. Knows no sequences.

The engine's thread writes, any thread may read. It changes only where a sequence comes, moves or goes.
"""

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class AdaptersAtWork:
    """Digests of the adapters that sequences of one moment run with, and wait for."""

    running: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()


@dataclass(slots=True, eq=False)
class AdapterLoad:
    """Sequences without an adapter have the digest None, and are not counted."""

    _running: Counter[str] = field(default_factory=Counter)
    _waiting: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)  # guards both

    def snapshot(self) -> AdaptersAtWork:
        with self._lock:
            return AdaptersAtWork(frozenset(self._running), frozenset(self._waiting))

    def come(self, digest: str | None) -> None:
        """A sequence waits."""
        if digest is not None:
            with self._lock:
                self._waiting[digest] += 1

    def begin(self, digest: str | None) -> None:
        """One that waited runs."""
        self._move(digest, self._waiting, self._running)

    def wait_again(self, digest: str | None) -> None:
        """One that ran waits."""
        self._move(digest, self._running, self._waiting)

    def go(self, digest: str | None, *, was_running: bool) -> None:
        """One has ended."""
        if digest is not None:
            with self._lock:
                _take(self._running if was_running else self._waiting, digest)

    def check_integrity(self, *, running: Iterable[str | None], waiting: Iterable[str | None]) -> None:
        """Raise AssertionError unless the counts are those of these sequences."""
        assert self._running == Counter(filter(None, running)), "running adapters are miscounted"
        assert self._waiting == Counter(filter(None, waiting)), "waiting adapters are miscounted"

    def _move(self, digest: str | None, source: Counter[str], target: Counter[str]) -> None:
        if digest is not None:
            with self._lock:
                _take(source, digest)
                target[digest] += 1


def _take(counts: Counter[str], digest: str) -> None:
    counts[digest] -= 1
    if not counts[digest]:
        del counts[digest]
