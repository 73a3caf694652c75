"""Cuts growing Markdown where nothing that follows can change what stands before. Knows no terminal."""

import re

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


def finished_length(text: str) -> int:
    """How many leading characters are blocks that are complete: they end at a blank line, outside of fenced code,
    which is followed by a line that is not indented and so belongs to no list item before it.
    """
    fence: str | None = None
    length = position = 0
    after_blank = False
    for line in text.splitlines(keepends=True):
        if fence is None and after_blank and not line[0].isspace():
            length = position
        after_blank = not line.strip()
        mark = _FENCE.match(line)
        if mark is not None and fence is None:
            fence = mark[1]
        elif mark is not None and fence is not None and _closes(fence, line):
            fence = None
        position += len(line)
    return length


def _closes(fence: str, line: str) -> bool:
    marks = line.strip()
    return set(marks) == {fence[0]} and len(marks) >= len(fence)
