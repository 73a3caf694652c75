"""Log records as lines, text or JSON, that nothing in them can break or blow up. Knows no request and no setting.

In a line of text control characters are written as escapes, and a traceback is indented, so that no line but a
record's first one begins at the margin. A line of JSON is ASCII, and one line whatever is in it.
"""

import json
import logging
import re
import time
from collections.abc import Mapping
from contextvars import ContextVar

MAX_MESSAGE_CHARS = 8192
MAX_TRACEBACK_CHARS = 32_768
MAX_FIELD_CHARS = 256
"""Of a field's text, unless it is one of LONG_FIELDS."""
LONG_FIELDS = {"prompts": 65_536}

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that is being answered here: every record that is made meanwhile has it."""

Value = str | int | float | None
Fields = Mapping[str, "Value | list[str]"]
"""What a record has beside its message, as its `fields`; None is left out of a line of text."""

# What ends a line, moves a cursor or turns the direction of reading, and halves of surrogate pairs.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_PLAIN = re.compile(r"""[^\s"'=\\]+""")


def escaped(text: str) -> str:
    """The text with each unsafe character as its escape sequence, as `\\n`."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def cut(text: str, limit: int) -> str:
    """The text, or its beginning and how much is missing."""
    return text if len(text) <= limit else f"{text[:limit]}…[+{len(text) - limit} characters]"


class _Lines(logging.Formatter):
    """What both forms have in common."""

    def _message(self, record: logging.LogRecord) -> str:
        return cut(record.getMessage(), MAX_MESSAGE_CHARS)

    def _traceback(self, record: logging.LogRecord) -> str | None:
        if not record.exc_info:
            return None
        text = self.formatException(record.exc_info)
        return text if len(text) <= MAX_TRACEBACK_CHARS else f"…{text[-MAX_TRACEBACK_CHARS:]}"

    def _fields(self, record: logging.LogRecord) -> dict[str, Value | list[str]]:
        fields: dict[str, Value | list[str]] = {"request_id": REQUEST_ID.get()}
        return fields | {name: _bounded(name, value) for name, value in getattr(record, "fields", {}).items()}


class TextLines(_Lines):
    """`time LEVEL logger: message name=value …`, a traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        time_ = self.formatTime(record)
        line = f"{time_} {record.levelname} {record.name}: {escaped(self._message(record))}"
        for name, value in self._fields(record).items():
            if value is not None:
                line += f" {name}={_written(value)}"
        traceback = self._traceback(record)
        if traceback is None:
            return line
        return "\n    ".join([line, *map(escaped, traceback.split("\n"))])


class JsonLines(_Lines):
    """An object with `time` (UTC), `level`, `logger`, `message`, the fields, and `exception` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        content: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _whole(self._message(record)),
        }
        fields = self._fields(record)
        content |= {name: value for name, value in fields.items() if value is not None or name != "request_id"}
        traceback = self._traceback(record)
        if traceback is not None:
            content["exception"] = _whole(traceback)
        return json.dumps(content)


def _bounded(name: str, value: "Value | list[str]") -> "Value | list[str]":
    limit = LONG_FIELDS.get(name, MAX_FIELD_CHARS)
    if isinstance(value, str):
        return _whole(cut(value, limit))
    if isinstance(value, list):
        return [_whole(cut(item, limit)) for item in value]
    return value


def _whole(text: str) -> str:
    """The text without halves of surrogate pairs, which strict readers of JSON refuse."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def _written(value: "Value | list[str]") -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return escaped(value)
    return escaped(json.dumps(value, ensure_ascii=False))
