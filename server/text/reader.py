"""AnswerReader: the text of an answer into what it says, thinks and calls. Knows no tokens."""

from collections.abc import Iterable
from dataclasses import dataclass

from server.text.answer_events import AnswerEvent, ContentText, ReasoningText, ToolCallArguments, ToolCallStarted
from server.text.deltas import CallDelta
from server.text.reasoning import ReasoningParser, Thoughts
from server.text.structure.structures import Structure, ToolCalls, is_bound
from server.text.tools.form_or_calls import FormOrCallsParser
from server.text.tools.parser import ToolCallParser


@dataclass(frozen=True, slots=True)
class Reading:
    """What a piece of text came to."""

    text: str
    reasoning: str = ""
    calls: tuple[CallDelta, ...] = ()


class AnswerReader:
    """One answer's. Thoughts are told apart first: what looks like a call in them is none."""

    def __init__(self, structure: Structure | None, thoughts: Thoughts) -> None:
        calls = structure if isinstance(structure, ToolCalls) else None
        self._reasoning = None
        if thoughts is not Thoughts.NONE:
            self._reasoning = ReasoningParser(is_open=thoughts is Thoughts.OPEN, is_bound=is_bound(structure))
        self._tools: ToolCallParser | FormOrCallsParser | None = None
        if calls is not None:
            self._tools = _call_parser(calls)

    def read(self, text: str) -> Reading:
        """What this piece makes known."""
        if self._reasoning is None and self._tools is None:
            return Reading(text)
        return _reading(self._events(text))

    def end(self) -> Reading:
        """What was held back, at the answer's end."""
        events: list[AnswerEvent] = []
        if self._reasoning is not None:
            events += self._called(self._reasoning.flush())
        if self._tools is not None:
            events += self._tools.flush()
        return _reading(events)

    def _events(self, text: str) -> list[AnswerEvent]:
        pieces: Iterable[ReasoningText | ContentText] = [ContentText(text)]
        if self._reasoning is not None:
            pieces = self._reasoning.decode(text)
        return self._called(pieces)

    def _called(self, pieces: Iterable[ReasoningText | ContentText]) -> list[AnswerEvent]:
        events: list[AnswerEvent] = []
        for piece in pieces:
            if self._tools is not None and isinstance(piece, ContentText):
                events += self._tools.decode(piece.text)
            else:
                events.append(piece)
        return events


def _call_parser(calls: ToolCalls) -> ToolCallParser | FormOrCallsParser:
    names = [function.name for function in calls.functions]
    parser = ToolCallParser(names, is_constrained=True, may_be_text=not is_bound(calls))
    return parser if calls.text_form is None else FormOrCallsParser(parser)


def _reading(events: Iterable[AnswerEvent]) -> Reading:
    text, reasoning = "", ""
    calls = []
    for event in events:
        if isinstance(event, ContentText):
            text += event.text
        elif isinstance(event, ReasoningText):
            reasoning += event.text
        elif isinstance(event, ToolCallStarted):
            calls.append(CallDelta(event.index, event.name, ""))
        elif isinstance(event, ToolCallArguments):
            calls.append(CallDelta(event.index, None, event.fragment))
    return Reading(text, reasoning, tuple(calls))
