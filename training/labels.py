"""Whether answers are labels of a classification, and which label an answer names. Knows no model."""

import re
import unicodedata
from collections.abc import Sequence

MAX_LABELS = 100
MAX_LABEL_CHARS = 60
_ROWS_PER_LABEL = 2


def find_labels(expected: Sequence[str]) -> tuple[str, ...] | None:
    """The labels, most frequent first, where expected answers are few, short and repeated; otherwise None.

    A classification has at most 100 different answers of at most 60 characters, at least two, and on average two rows
    for each.
    """
    names = distinct(expected)
    few = 2 <= len(names) <= min(MAX_LABELS, len(expected) // _ROWS_PER_LABEL)
    return names if few and all(0 < len(name) <= MAX_LABEL_CHARS for name in names) else None


def distinct(expected: Sequence[str]) -> tuple[str, ...]:
    """Every different answer, blanks at its ends aside, most frequent first."""
    texts = [text.strip() for text in expected]
    counts = dict.fromkeys(texts, 0)
    for text in texts:
        counts[text] += 1
    return tuple(sorted(counts, key=lambda text: (-counts[text], text)))


def label_of(answer: str, labels: Sequence[str]) -> int | None:
    """The index of the label that an answer is or begins with, the longest one; None where it names no label.

    Case, full-width forms, and signs and blanks at both ends make no difference.
    """
    text = _plain(answer)
    found: int | None = None
    length = 0
    for index, label in enumerate(labels):
        plain = _plain(label)
        if len(plain) > length and _begins_with(text, plain):
            found, length = index, len(plain)
    return found


def _begins_with(text: str, label: str) -> bool:
    """Whether the label ends where a word does; words of a script without blanks end anywhere."""
    if not text.startswith(label):
        return False
    return re.match(r"[A-Za-z0-9]\w", label[-1:] + text[len(label) : len(label) + 1]) is None


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"^[\W_]+|[\W_]+$", "", " ".join(folded.split()))
