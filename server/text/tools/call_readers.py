"""Readers of one call, from behind its opening tag to its closing tag. Know no text around calls.

Both have `decode` and `flush`; once `rest` is a text, the call is over, and `rest` is what stood behind it.
"""

import json
import re
from collections.abc import Iterable
from typing import Protocol

from adapters.hermes import CALL_CLOSE, CALL_OPEN
from server.text.answer_events import ContentText, ToolCallArguments, ToolCallEnded, ToolCallStarted, ToolEvent
from server.text.tools.json_scanner import ObjectScanner

_STRING = r'"(?:[^"\\]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"'
_HEAD = re.compile(rf'\s*\{{\s*"name"\s*:\s*({_STRING})\s*,\s*"arguments"\s*:\s*(?=\{{)', re.DOTALL)
_SPACE = " \t\r\n"


class CallReader(Protocol):
    """One call on its way."""

    rest: str | None
    has_started: bool

    def decode(self, text: str) -> list[ToolEvent]:
        """What this piece of text makes known of the call."""

    def flush(self) -> list[ToolEvent]:
        """What remains to be said when the answer ends inside the call."""


class StreamedCall:
    """Tells of arguments while they are made. For answers that a grammar holds to the form of a call."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._held = ""
        self._arguments = ObjectScanner()
        self.has_started = False
        self.rest: str | None = None

    def decode(self, text: str) -> list[ToolEvent]:
        self._held += text
        events = [] if self.has_started else self._head()
        if self.has_started and not self._arguments.is_complete:
            events += self._fragment()
        if self._arguments.is_complete:
            self._look_for_close()
        return events

    def flush(self) -> list[ToolEvent]:
        """Nothing: text that a grammar made is part of a call, never content."""
        return []

    def _head(self) -> list[ToolEvent]:
        match = _HEAD.match(self._held)
        if match is None:
            return []
        self.has_started = True
        self._held = self._held[match.end() :]
        return [ToolCallStarted(self._index, json.loads(match[1], strict=False))]

    def _fragment(self) -> list[ToolEvent]:
        length = self._arguments.take(self._held)
        fragment, self._held = self._held[:length], self._held[length:]
        events: list[ToolEvent] = [ToolCallArguments(self._index, fragment)] if fragment else []
        if self._arguments.is_complete:
            events.append(ToolCallEnded(self._index))
        return events

    def _look_for_close(self) -> None:
        _, tag, rest = self._held.partition(CALL_CLOSE)
        if tag:
            self.rest = rest


class CheckedCall:
    """Tells of a call when it is complete and well formed. What turns out to be none becomes content, as it stood.

    For answers without a grammar. `gap` is the white space before the opening tag.
    """

    def __init__(self, index: int, names: frozenset[str], gap: str) -> None:
        self._index = index
        self._names = names
        self._opening = gap + CALL_OPEN
        self._held = ""
        self._object = ObjectScanner()
        self._scanned = 0  # characters of _held up to where the scanner has read; 0 before the object
        self.has_started = False
        self.rest: str | None = None

    def decode(self, text: str) -> list[ToolEvent]:
        self._held += text
        if not self._object.is_complete and not self._scan():
            return self._not_a_call()
        if not self._object.is_complete:
            return []
        return self._close()

    def flush(self) -> list[ToolEvent]:
        return [ContentText(self._opening + self._held)]

    def _scan(self) -> bool:
        """Look for the object's end. False if what begins here is no object."""
        if self._scanned == 0:
            start = _skip(self._held, 0)
            if start == len(self._held):
                return True
            if self._held[start] != "{":
                return False
            self._scanned = start
        self._scanned += self._object.take(self._held[self._scanned :])
        return True

    def _close(self) -> list[ToolEvent]:
        """The object is complete: the closing tag must follow."""
        behind = self._held[self._scanned :].lstrip(_SPACE)
        if CALL_CLOSE.startswith(behind) and behind != CALL_CLOSE:
            return []
        if not behind.startswith(CALL_CLOSE):
            return self._not_a_call()
        call = parse_call(self._held[: self._scanned], self._names)
        if call is None:
            return self._not_a_call()
        name, arguments = call
        self.has_started = True
        self.rest = behind.removeprefix(CALL_CLOSE)
        return [
            ToolCallStarted(self._index, name),
            ToolCallArguments(self._index, arguments),
            ToolCallEnded(self._index),
        ]

    def _not_a_call(self) -> list[ToolEvent]:
        """The opening tag was content; what stands behind it may hold another one."""
        self.rest = self._held
        return [ContentText(self._opening)]


def parse_call(text: str, names: Iterable[str]) -> tuple[str, str] | None:
    """Name and arguments (JSON text, as it stands) of a call's object; None if it is no call of these functions."""
    try:
        members = _members(text)
        name = json.loads(members["name"])
        arguments = members["arguments"]
        is_object = isinstance(json.loads(arguments), dict)
    except (ValueError, KeyError, RecursionError):
        return None
    if len(members) != 2 or not is_object or not isinstance(name, str) or name not in names:
        return None
    return name, arguments


def _members(text: str) -> dict[str, str]:
    """The members of a JSON object, each value as it stands. Raises ValueError, RecursionError."""
    decoder = json.JSONDecoder()
    members: dict[str, str] = {}
    position = _expect(text, 0, "{")
    while True:
        key, end = decoder.raw_decode(text, position)
        start = _expect(text, end, ":")
        _, end = decoder.raw_decode(text, start)
        members[str(key)] = text[start:end]
        position = _skip(text, end)
        if text[position : position + 1] != ",":
            break
        position = _skip(text, position + 1)
    _expect(text, position, "}")
    return members


def _expect(text: str, position: int, character: str) -> int:
    """Where the next token begins, behind this character. Raises ValueError."""
    position = _skip(text, position)
    if text[position : position + 1] != character:
        raise ValueError(f"no {character} where there should be one")
    return _skip(text, position + 1)


def _skip(text: str, position: int) -> int:
    return position + len(text[position:]) - len(text[position:].lstrip(_SPACE))
