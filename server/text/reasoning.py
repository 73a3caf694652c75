"""ReasoningParser: thoughts between think tags apart from the answer, while it is made. Knows no tokens."""

from collections.abc import Container
from enum import Enum

from server.text.answer_events import ContentText, ReasoningText
from server.text.tags import open_length

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"
BEHIND_THOUGHTS = "\n\n"
"""What stands between thoughts and an answer that has a form."""


class Thoughts(Enum):
    """Whether an answer begins with thoughts."""

    NONE = "none"
    POSSIBLE = "possible"
    OPEN = "open"
    """The prompt has opened them."""


def has_think_tags(template: str, vocabulary: Container[str]) -> bool:
    """Whether a model writes thoughts between think tags: its chat template or its vocabulary has the closing tag."""
    return THINK_CLOSE in template or THINK_CLOSE in vocabulary


def thoughts_behind(prompt: str) -> Thoughts:
    """What a model that may think does behind this prompt; templates close thoughts that nobody wants."""
    end = prompt.rstrip()
    if end.endswith(THINK_OPEN):
        return Thoughts.OPEN
    return Thoughts.NONE if end.endswith(THINK_CLOSE) else Thoughts.POSSIBLE


class ReasoningParser:
    """Splits text at the tags around the thoughts that an answer may begin with; later tags are content.

    White space at the edges of the thoughts, and before the content behind them, belongs to nobody. The events do not
    depend on how the text was cut, but for where they are cut. `is_open` says that the prompt has opened the thoughts.

    `is_bound` says that a grammar holds the content to a form: no white space stands before the thoughts, exactly
    `BEHIND_THOUGHTS` behind them, and all other white space is content.
    """

    def __init__(self, *, is_open: bool, is_bound: bool = False) -> None:
        self._is_bound = is_bound
        self._read = self._read_thoughts if is_open else self._read_start
        self._held = ""
        self._is_at_edge = True  # nothing but white space since the last tag

    def decode(self, text: str) -> list[ReasoningText | ContentText]:
        """What this piece of text makes known."""
        self._held += text
        events: list[ReasoningText | ContentText] = []
        while self._read(events):
            pass
        return events

    def flush(self) -> list[ReasoningText | ContentText]:
        """What was held back, at the answer's end. Thoughts without an end stay thoughts."""
        held, self._held = self._held, ""
        if not held or self._read == self._read_gap:
            return []
        if self._read == self._read_thoughts:
            thoughts = held.strip() if self._is_at_edge else held.rstrip()
            return [ReasoningText(thoughts)] if thoughts else []
        return [ContentText(held)]

    def _read_start(self, _: list[ReasoningText | ContentText]) -> bool:
        """Before the first character that is not white space. True when it is known what the answer begins with."""
        start = self._held if self._is_bound else self._held.lstrip()
        if start.startswith(THINK_OPEN):
            self._held = start.removeprefix(THINK_OPEN)
            self._read = self._read_thoughts
        elif THINK_OPEN.startswith(start):
            return False
        else:
            self._is_at_edge = False  # without thoughts, content is left as it is
            self._read = self._read_content
        return True

    def _read_thoughts(self, events: list[ReasoningText | ContentText]) -> bool:
        """Between the tags. True when the closing tag was found."""
        text = self._held.lstrip() if self._is_at_edge else self._held
        thoughts, tag, rest = text.partition(THINK_CLOSE)
        shown = thoughts.rstrip() if tag else thoughts[: len(thoughts) - open_length(thoughts, THINK_CLOSE)]
        self._held = rest if tag else text[len(shown) :]
        if shown:
            self._is_at_edge = False
            events.append(ReasoningText(shown))
        if tag:
            self._is_at_edge = not self._is_bound
            self._read = self._read_gap if self._is_bound else self._read_content
        return bool(tag)

    def _read_gap(self, _: list[ReasoningText | ContentText]) -> bool:
        """Between the closing tag and content with a form. True when the content begins."""
        if len(self._held) < len(BEHIND_THOUGHTS):
            return False
        self._held = self._held.removeprefix(BEHIND_THOUGHTS)
        self._read = self._read_content
        return True

    def _read_content(self, events: list[ReasoningText | ContentText]) -> bool:
        """Behind the thoughts, or without any. Never has more to read."""
        text = self._held.lstrip() if self._is_at_edge else self._held
        self._held = ""
        if text:
            self._is_at_edge = False
            events.append(ContentText(text))
        return False
