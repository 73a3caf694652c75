"""AdapterUse: what adapters are used for, by name: requests, tokens, and how many requests run. Knows no HTTP.

Safe to call from any thread.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from adapters.naming import AdapterReference

MAX_LABELS = 100
OTHER = "other"


@dataclass(slots=True)
class UseCounts:
    """How much one adapter was used; virtual tokens are in no count."""

    requests: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0


class Tally:
    """Where one running request counts its tokens."""

    def __init__(self, lock: threading.Lock, counts: tuple[UseCounts, ...]) -> None:
        self._lock = lock
        self._counts = counts

    def add(self, *, prompt_tokens: int, generated_tokens: int) -> None:
        """Count tokens of a prompt once, and those of each answer."""
        with self._lock:
            for counts in self._counts:
                counts.prompt_tokens += prompt_tokens
                counts.generated_tokens += generated_tokens


class AdapterUse:
    """Counts by name, which end with the name, and counts by label, which never go down.

    The first MAX_LABELS names that are used keep a label of their own for the life of the process, also when they are
    removed; all others, and an adapter that is called so itself, share the label OTHER.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below, and the counts in them
        self._by_name: dict[str, UseCounts] = {}
        self._by_label: dict[str, UseCounts] = {OTHER: UseCounts()}
        self._running: dict[str, Counter[str]] = {}  # by name and digest; at least 1

    @contextmanager
    def request(self, adapter: AdapterReference | None) -> Iterator[Tally]:
        """Around one request, which counts as running inside; without an adapter nothing is counted."""
        if adapter is None or adapter.digest_prefix is None:
            yield Tally(self._lock, ())
            return
        name, digest = adapter.name, adapter.digest_prefix
        tally = self._enter(name, digest)
        try:
            yield tally
        finally:
            self._leave(name, digest)

    def of(self, name: str) -> UseCounts:
        """A copy of a name's counts since it was first used here."""
        with self._lock:
            return replace(self._by_name.get(name, UseCounts()))

    def by_label(self) -> dict[str, UseCounts]:
        """A copy of the counts of every label."""
        with self._lock:
            return {label: replace(counts) for label, counts in self._by_label.items()}

    def running(self, name: str) -> Counter[str]:
        """How many requests run with an adapter of this name, by digest."""
        with self._lock:
            return Counter(self._running.get(name, ()))

    def in_flight(self) -> dict[str, frozenset[str]]:
        """The names that requests are being answered with, and the digests."""
        with self._lock:
            return {name: frozenset(digests) for name, digests in self._running.items()}

    def forget(self, name: str) -> None:
        """Drop the counts of a name that was removed; labels keep theirs, and what runs goes on."""
        with self._lock:
            self._by_name.pop(name, None)

    def _enter(self, name: str, digest: str) -> Tally:
        with self._lock:
            counts = (self._by_name.setdefault(name, UseCounts()), self._labelled(name))
            for each in counts:
                each.requests += 1
            self._running.setdefault(name, Counter())[digest] += 1
        return Tally(self._lock, counts)

    def _leave(self, name: str, digest: str) -> None:
        with self._lock:
            running = self._running[name]
            running[digest] -= 1
            if not running[digest]:
                del running[digest]
            if not running:
                del self._running[name]

    def _labelled(self, name: str) -> UseCounts:
        if name not in self._by_label and len(self._by_label) <= MAX_LABELS:
            self._by_label[name] = UseCounts()
        return self._by_label.get(name, self._by_label[OTHER])
