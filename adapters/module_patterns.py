"""PEFT's patterns of module names (rank_pattern, alpha_pattern), matched in bounded time. Knows no tensors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from adapters.errors import AdapterInvalid, AdapterUnsupported

MAX_PATTERNS = 1024
MAX_EXPRESSIONS = 16
MAX_ALTERNATIVES = 16
MAX_PATTERN_LENGTH = 256

_ITEM = r"(?:[A-Za-z0-9_.\-]|\\[.d]|\[[A-Za-z0-9_\-]+\])"
_REPEATED = r"(?:\.|\\d|\[0-9\])[*+]"
_GROUP = rf"\((?:\?:)?{_ITEM}+(?:\|{_ITEM}+)*\)"
_FIXED = re.compile(rf"\^?(?:{_ITEM})*\$?")
"""Matches text of one length only, so there is one place where it can stand."""
_EXPRESSION = re.compile(
    rf"\^?(?:{_ITEM})*(?:{_REPEATED}(?:{_ITEM})*(?:{_GROUP}(?:{_ITEM})*)?|{_GROUP}(?:{_ITEM})*(?:{_REPEATED}(?:{_ITEM})*)?)\$?"
)
"""At most one repetition and one group of alternatives: more of them can take time without bound."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    """`length` is that of the text it matches at a path's end; where it varies, None, and the whole path is matched."""

    compiled: re.Pattern[str]
    length: int | None

    def matches(self, path: str) -> bool:
        if self.length is None:
            return self.compiled.match(path) is not None
        start = len(path) - self.length
        is_whole_part = start == 0 or (start > 0 and path[start - 1] == ".")
        return is_whole_part and self.compiled.match(path, start) is not None


class ModulePatterns:
    """Which value each module has, where a mapping of patterns says another than the default.

    A pattern is a regular expression for the end of a module's path, whole parts only; the first that matches counts
    (peft.utils.other.get_pattern_key).
    """

    def __init__(self, field: str, values: Mapping[str, float]) -> None:
        """Raises AdapterInvalid for more than 1,024 patterns, AdapterUnsupported for one that may match slowly."""
        if len(values) > MAX_PATTERNS:
            raise AdapterInvalid("adapter_config.json", f"'{field}' has {len(values)} patterns, over {MAX_PATTERNS}")
        self._values = [(_pattern(field, pattern), value) for pattern, value in values.items()]
        num_expressions = sum(pattern.length is None for pattern, _ in self._values)
        if num_expressions > MAX_EXPRESSIONS:
            raise AdapterUnsupported(
                "adapter_config.json", f"'{field}' has {num_expressions} patterns with * + or |, over {MAX_EXPRESSIONS}"
            )

    def value_of(self, path: str, *, default: float) -> float:
        """The value of the module at `path`, without `base_model.model.`."""
        return next((value for pattern, value in self._values if pattern.matches(path)), default)


def _pattern(field: str, pattern: str) -> _Pattern:
    try:
        if len(pattern) <= MAX_PATTERN_LENGTH and _FIXED.fullmatch(pattern):
            return _Pattern(re.compile(f"{pattern}$"), len(re.findall(_ITEM, pattern)))
        if len(pattern) <= MAX_PATTERN_LENGTH and _is_served(pattern):
            return _Pattern(re.compile(rf"(.*\.)?({pattern})$"), None)
    except re.error:
        raise AdapterInvalid("adapter_config.json", f"'{field}' has a bad pattern {pattern[:80]!r}") from None
    raise AdapterUnsupported(
        "adapter_config.json",
        f"'{field}' has the pattern {pattern[:80]!r}; served are names, '.', classes, one repetition and one (a|b)",
    )


def _is_served(pattern: str) -> bool:
    return pattern.count("|") < MAX_ALTERNATIVES and _EXPRESSION.fullmatch(pattern) is not None
