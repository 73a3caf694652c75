"""The frames of a response's stream: each event by its name, and no end mark. Knows no response."""

import orjson

from server.api.response_parts import Event
from server.api.response_writing import ResponseWriter
from server.errors import error_body
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

    def failure(self, error: Exception) -> list[bytes]:
        """Instead of all that would have come."""
        return _frames(self._writer.fail(error_body(error).error))


def _frames(events: list[Event]) -> list[bytes]:
    return [b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event)) for event in events]
