"""Observed: one request after it was answered, all that is told of it. Knows no text form and no metric."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.keys import Caller
from server.telemetry.http_counts import Answered
from server.text.request_notes import RequestNotes


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """`ended_at` is of `time.perf_counter`, as the notes' times are."""

    request_id: str
    method: str
    route: str | None
    """The route's template; None where no route has that path."""
    path: str
    """As the client sent it, without what follows a question mark."""
    status: int
    traceparent: str | None
    tracestate: str | None
    caller: Caller | None
    """None where nobody asked whose key it was."""
    notes: RequestNotes
    ended_at: float

    @classmethod
    def of(cls, scope: Mapping[str, Any], notes: RequestNotes, *, status: int) -> "Observed":
        """Of an ASGI scope, after the app has had it."""
        state = scope["state"]
        headers = {name: value for name, value in scope["headers"] if name in (b"traceparent", b"tracestate")}
        return cls(
            request_id=state.get("request_id", ""),
            method=scope["method"],
            route=_template(scope),
            path=scope["path"],
            status=status,
            traceparent=_text(headers.get(b"traceparent")),
            tracestate=_text(headers.get(b"tracestate")),
            caller=state.get("caller"),
            notes=notes,
            ended_at=time.perf_counter(),
        )

    @property
    def seconds(self) -> float:
        return self.ended_at - self.notes.arrived_at

    @property
    def answered(self) -> Answered:
        return Answered.of(self.method, self.route, self.status)

    @property
    def key_id(self) -> str | None:
        """Eight hexadecimal digits that stay the same as long as the key does, and do not give it away."""
        if self.caller is None or not self.caller.digest:
            return None
        return hashlib.blake2b(self.caller.digest, digest_size=4, person=b"key id").hexdigest()


def _template(scope: Mapping[str, Any]) -> str | None:
    template: str | None = getattr(scope.get("route"), "path", None)
    return template


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
