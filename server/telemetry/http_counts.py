"""HttpCounts: how many requests were answered, by method, route and class of status. Knows no metric's name.

Safe to call from any thread.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD = "other"
UNMATCHED = "unmatched"


@dataclass(frozen=True, slots=True)
class Answered:
    """Of what kind an answer is; there are few kinds, whatever clients send."""

    method: str
    route: str
    """The route's template, or UNMATCHED."""
    status: str
    """As `2xx`."""

    @classmethod
    def of(cls, method: str, route: str | None, status: int) -> "Answered":
        return cls(method if method in METHODS else OTHER_METHOD, route or UNMATCHED, f"{status // 100}xx")


class HttpCounts:
    """One for each app."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[Answered] = Counter()

    def add(self, answered: Answered) -> None:
        with self._lock:
            self._counts[answered] += 1

    def snapshot(self) -> Mapping[Answered, int]:
        with self._lock:
            return dict(self._counts)
