"""FormOrCallsParser: a tag is a call where the answer begins, and text everywhere else, however the text is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.text.answer_events import ContentText, ToolCallArguments, ToolCallStarted, ToolEvent
from server.text.tools.form_or_calls import FormOrCallsParser
from server.text.tools.parser import ToolCallParser

CALL = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
TEXTS = [f'{{"a":"{CALL}"}}', f" {CALL}", "<tool_cal", "<tool_cal and", "<", "", "text", CALL, f"{CALL}\n{CALL}"]


def parse(parts: list[str]) -> list[ToolEvent]:
    parser = FormOrCallsParser(ToolCallParser(["f"], is_constrained=True, may_be_text=False))
    return [event for part in parts for event in parser.decode(part)] + parser.flush()


def content_of(events: list[ToolEvent]) -> str:
    assert all(event.text for event in events if isinstance(event, ContentText))
    return "".join(event.text for event in events if isinstance(event, ContentText))


@pytest.mark.parametrize("text", TEXTS[:7])
def test_what_does_not_begin_with_a_call_is_text_as_it_stands(text: str) -> None:
    events = parse([text])
    assert content_of(events) == text
    assert all(isinstance(event, ContentText) for event in events)


def test_what_begins_with_a_call_is_calls() -> None:
    events = parse([f"{CALL}\n{CALL}"])
    assert content_of(events) == ""
    assert [event.index for event in events if isinstance(event, ToolCallStarted)] == [0, 1]


@given(text=st.sampled_from(TEXTS), size=st.integers(1, 12))
def test_result_does_not_depend_on_cuts(text: str, size: int) -> None:
    cut = parse([text[i : i + size] for i in range(0, len(text), size)])
    whole = parse([text])
    assert content_of(cut) == content_of(whole)
    for kind in (ToolCallStarted, ToolCallArguments):
        assert [e.index for e in cut if isinstance(e, kind)][:1] == [e.index for e in whole if isinstance(e, kind)][:1]
