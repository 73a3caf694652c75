"""ToolCallParser: text of an answer into content and calls, while it is made. Knows no tokens and no grammar."""

from collections.abc import Iterable

from adapters.hermes import CALL_OPEN
from server.text.answer_events import ContentText, ToolEvent
from server.text.tags import open_length
from server.text.tools.call_readers import CallReader, CheckedCall, StreamedCall


class ToolCallParser:
    """Splits text at tags of calls, and never gives a part of a tag as content while it may yet become one.

    White space before a call and behind it belongs to nobody. The events do not depend on how the text was cut, but
    for where content and arguments are cut.

    `is_constrained` says that a grammar makes every call well formed: arguments are then told while they are made.
    Without it a call is told when it is complete, and what is malformed, or calls a function that is not among
    `names`, is content. `may_be_text` says that there may be content at all; if not, what a cut-off answer leaves of
    a tag is dropped.
    """

    def __init__(self, names: Iterable[str], *, is_constrained: bool, may_be_text: bool = True) -> None:
        self._names = frozenset(names)
        self._is_constrained = is_constrained
        self._may_be_text = may_be_text
        self._held = ""
        self._call: CallReader | None = None
        self._is_behind_call = False
        self.num_calls = 0

    def decode(self, text: str) -> list[ToolEvent]:
        """What this piece of text makes known."""
        events: list[ToolEvent] = []
        rest: str | None = text
        while rest is not None:
            call = self._call
            rest = self._read_call(call, rest, events) if call else self._read_content(rest, events)
        return events

    def flush(self) -> list[ToolEvent]:
        """What was held back, at the answer's end."""
        if self._call is not None:
            call, self._call = self._call, None
            return call.flush()
        held, self._held = self._held, ""
        return [ContentText(held)] if held and self._may_be_text else []

    def _read_content(self, text: str, events: list[ToolEvent]) -> str | None:
        """Take content; the text behind an opening tag, or None if there is none."""
        text = self._held + text
        if self._is_behind_call:
            text = text.lstrip()
            self._is_behind_call = not text
        before, tag, rest = text.partition(CALL_OPEN)
        shown = before.rstrip() if tag else before[: len(before) - open_length(before, CALL_OPEN)]
        self._held = "" if tag else before[len(shown) :]
        if shown:
            events.append(ContentText(shown))
        if not tag:
            return None
        self._call = self._new_call(before[len(shown) :])
        return rest

    def _new_call(self, gap: str) -> CallReader:
        if self._is_constrained:
            return StreamedCall(self.num_calls)
        return CheckedCall(self.num_calls, self._names, gap)

    def _read_call(self, call: CallReader, text: str, events: list[ToolEvent]) -> str | None:
        """Take a part of a call; the text behind its end, or None while it goes on."""
        events.extend(call.decode(text))
        if call.rest is None:
            return None
        self._call = None
        self.num_calls += call.has_started
        self._is_behind_call = call.has_started
        return call.rest
