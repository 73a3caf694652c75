"""The frames of a response's stream: each event by its name, and no end mark. Knows no response."""

import orjson

from server.api.response_parts import Event
from server.api.response_writing import ResponseWriter
from server.protocol.errors import ErrorBody
from server.text.deltas import TextDelta, Usage


class ResponseFrames:
    """What a response's stream is made of; the last delta's events end it."""

    def __init__(self, writer: ResponseWriter) -> None:
        self._writer = writer

    def begin(self) -> list[bytes]:
        """Before the first delta."""
        return _frames(self._writer.begin())

    def of(self, delta: TextDelta) -> list[bytes]:
        """What one delta brings."""
        return _frames(self._writer.add(delta))

    def end(self, usage: Usage) -> list[bytes]:  # noqa: ARG002
        """After the last delta: nothing, its own events have said so."""
        return []


class ResponseForm:
    """Streams of a response's events, which tell nothing of what the answer comes from."""

    def __init__(self, writer: ResponseWriter) -> None:
        self._writer = writer

    def frames(self, fingerprint: str) -> ResponseFrames:  # noqa: ARG002
        """Those of this response."""
        return ResponseFrames(self._writer)

    def failure(self, error: ErrorBody) -> list[bytes]:
        """Instead of all that would have come; a response that has not begun begins with it."""
        events = self._writer.begin() if not self._writer.has_begun else []
        return _frames([*events, *self._writer.fail(error)])


def _frames(events: list[Event]) -> list[bytes]:
    return [b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event)) for event in events]
