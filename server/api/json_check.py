"""What a JSON body may be, whatever its fields are: UTF-8, finite, of 64-bit integers, not too deep. Knows no field."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import orjson

from server.errors import BodyRefused

MAX_BODY_DEPTH = 40
"""32 for an object that clients write as they like (a tool's schema), and what stands around it."""

_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_MAX_PATH_CHARS = 256


def check_json(body: bytes) -> None:
    """Raise BodyRefused, with the field if there is one, unless every reader of JSON understands this body alike."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        _refuse_value(body)
        raise BodyRefused(f"the body is not valid JSON: {error.msg} (at character {error.pos})") from None
    if _is_deeper(value, MAX_BODY_DEPTH):
        raise BodyRefused(f"the body is nested more than {MAX_BODY_DEPTH} deep")
    if _LONG_NUMBER.search(body):
        _refuse_value(body)


def _refuse_value(body: bytes) -> None:
    """Name the value that only Python's own reader takes, if there is one; slow, and seldom needed."""
    try:
        value = json.loads(body.decode())
    except (ValueError, RecursionError):
        return
    for path, inner in _walk(value):
        if problem := _problem(inner):
            name = ".".join(path)[:_MAX_PATH_CHARS]
            raise BodyRefused(f"{name}: {problem}" if name else f"the body {problem}", param=name or None)


def _problem(value: object) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return "is not a finite number"
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return "is an integer of more than 64 bits"
    if isinstance(value, str) and not _is_unicode(value):
        return "has half of a surrogate pair, which is no character"
    return None


def _walk(value: object) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every value with its path; the keys of an object come as values of it, as far as they are no text."""
    pending: list[tuple[tuple[str, ...], Any]] = [((), value)]
    while pending:
        path, outer = pending.pop()
        yield path, outer
        if isinstance(outer, dict):
            yield from ((path, key) for key in outer if not _is_unicode(key))
            pending += [((*path, key), inner) for key, inner in outer.items()]
        elif isinstance(outer, list):
            pending += [((*path, str(index)), inner) for index, inner in enumerate(outer)]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_deeper(value: object, depth: int) -> bool:
    """Whether containers are nested more than `depth` deep; level by level, so that it needs no stack."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(depth):
        if not level:
            return False
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return bool(level)
