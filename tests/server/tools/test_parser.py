"""ToolCallParser: the same events however the text was cut, and never a part of a tag as content."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.text.answer_events import ContentText, ToolCallArguments, ToolCallEnded, ToolCallStarted, ToolEvent
from server.text.tools.call_readers import parse_call
from server.text.tools.json_scanner import ObjectScanner
from server.text.tools.parser import ToolCallParser

NAMES = ["get_weather", "f"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.text(max_size=6), JSON, max_size=3)
CUTS = st.lists(st.integers(1, 9), max_size=80)
SNIPPETS = [
    *(
        "<tool_call>",
        "</tool_call>",
        "<tool_",
        "call>",
        "<",
        "\n",
        " ",
        "a",
        "Hello",
        "{",
        "}",
        '"',
        "\\",
        "[",
        "]",
        ",",
    ),
    *('{"name": "f", "arguments": ', '{"x": 1}', '{"name": "g", "arguments": {}}', '{"arguments":{},"name":"f"}'),
]
MESSY = st.lists(st.sampled_from(SNIPPETS), max_size=25).map("".join)


def pieces(text: str, cuts: list[int]) -> list[str]:
    ends = [0]
    for cut in cuts:
        ends.append(min(ends[-1] + cut, len(text)))
    return [text[start:end] for start, end in pairwise([*ends, len(text)])]


def merged(events: list[ToolEvent]) -> list[ToolEvent]:
    """Neighbouring texts joined, neighbouring fragments of one call too."""
    result: list[ToolEvent] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, ContentText) and isinstance(last, ContentText):
            result[-1] = ContentText(last.text + event.text)
        elif isinstance(event, ToolCallArguments) and isinstance(last, ToolCallArguments):
            result[-1] = ToolCallArguments(event.index, last.fragment + event.fragment)
        else:
            result.append(event)
    return result


def parse(parts: list[str], *, is_constrained: bool, may_be_text: bool = True) -> list[ToolEvent]:
    parser = ToolCallParser(NAMES, is_constrained=is_constrained, may_be_text=may_be_text)
    events = [event for part in parts for event in parser.decode(part)]
    return events + parser.flush()


def call_text(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {arguments}}}\n</tool_call>'


def call_events(index: int, name: str, arguments: str) -> list[ToolEvent]:
    return [ToolCallStarted(index, name), ToolCallArguments(index, arguments), ToolCallEnded(index)]


@given(
    content=st.text(max_size=20),
    calls=st.lists(st.tuples(st.sampled_from(NAMES), ARGUMENTS, st.booleans()), min_size=1, max_size=3),
    cuts=CUTS,
    is_constrained=st.booleans(),
)
def test_calls_come_out_as_they_went_in(
    content: str, calls: list[tuple[str, dict[str, object], bool]], cuts: list[int], *, is_constrained: bool
) -> None:
    texts = [(name, json.dumps(arguments, ensure_ascii=is_ascii)) for name, arguments, is_ascii in calls]
    text = content + "\n" + "\n".join(call_text(name, arguments) for name, arguments in texts)
    expected: list[ToolEvent] = [ContentText(content.rstrip())] if content.strip() else []
    for index, (name, arguments) in enumerate(texts):
        expected += call_events(index, name, arguments)
    assert merged(parse(pieces(text, cuts), is_constrained=is_constrained)) == expected


@given(text=MESSY, cuts=CUTS, is_constrained=st.booleans(), may_be_text=st.booleans())
def test_events_do_not_depend_on_cuts(text: str, cuts: list[int], *, is_constrained: bool, may_be_text: bool) -> None:
    whole = parse([text], is_constrained=is_constrained, may_be_text=may_be_text)
    cut = parse(pieces(text, cuts), is_constrained=is_constrained, may_be_text=may_be_text)
    assert merged(cut) == merged(whole)


@given(text=MESSY, cuts=CUTS)
def test_without_a_grammar_what_is_no_call_is_content(text: str, cuts: list[int]) -> None:
    events = merged(parse(pieces(text, cuts), is_constrained=False))
    for event, following in pairwise(events):
        if isinstance(event, ToolCallStarted):
            assert event.name in NAMES
            assert isinstance(following, ToolCallArguments)
            assert isinstance(json.loads(following.fragment), dict)
    if not any(isinstance(event, ToolCallStarted) for event in events):
        assert "".join(event.text for event in events if isinstance(event, ContentText)) == text


@given(text=MESSY, cuts=CUTS)
def test_no_part_of_a_tag_is_shown_before_it_is_known_to_be_none(text: str, cuts: list[int]) -> None:
    tag = "<tool_call>"
    parser = ToolCallParser(NAMES, is_constrained=True)
    seen = shown = ""
    for piece in pieces(text.partition(tag)[0], cuts):
        seen += piece
        shown += "".join(event.text for event in parser.decode(piece) if isinstance(event, ContentText))
        started = max(length for length in range(len(tag)) if seen.endswith(tag[:length]))
        assert seen[: len(seen) - started].startswith(shown)


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>\nhello\n</tool_call>",
        call_text("unknown", "{}"),
        call_text("f", "[1]"),
        call_text("f", '"{}"'),
        '<tool_call>{"name": "f"}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {}, "more": 1}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"a": }}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {}} and more</tool_call>',
        '<tool_call>{"name": "f", "arguments": {}}',
        '<tool_call>{"name": ["f"], "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": ' + '{"a":' * 50_000 + "1" + "}" * 50_001 + "</tool_call>",
        "  <tool_call>\n{",
        "a < b and <tool",
    ],
)
def test_malformed_calls_are_content(text: str) -> None:
    assert merged(parse([text], is_constrained=False)) == [ContentText(text)]


def test_a_call_behind_a_malformed_one_is_found() -> None:
    events = merged(parse(["<tool_call>oh, " + call_text("f", '{"a": 1}')], is_constrained=False))
    assert events == [ContentText("<tool_call>oh,"), *call_events(0, "f", '{"a": 1}')]


def test_arguments_are_told_while_they_are_made() -> None:
    parser = ToolCallParser(NAMES, is_constrained=True)
    seen = [
        parser.decode(piece) for piece in ["<tool_call>\n", '{"name": "f", "arguments": ', '{"ci', 'ty": "}"', "}}"]
    ]
    assert seen == [
        [],
        [],
        [ToolCallStarted(0, "f"), ToolCallArguments(0, '{"ci')],
        [ToolCallArguments(0, 'ty": "}"')],
        [ToolCallArguments(0, "}"), ToolCallEnded(0)],
    ]
    assert parser.num_calls == 0  # not before its closing tag
    assert parser.decode("\n</tool_call>") == []
    assert parser.num_calls == 1


def test_a_cut_off_call_has_no_end() -> None:
    events = parse(['<tool_call>\n{"name": "f", "arguments": {"a": [1, '], is_constrained=True)
    assert merged(events) == [ToolCallStarted(0, "f"), ToolCallArguments(0, '{"a": [1, ')]


def test_what_is_left_of_a_tag_is_dropped_where_only_calls_may_come() -> None:
    assert parse(["<tool_c"], is_constrained=True, may_be_text=False) == []
    assert parse(["<tool_c"], is_constrained=True) == [ContentText("<tool_c")]


def test_names_and_arguments_in_any_order() -> None:
    assert parse_call('{ "arguments" : {"a":[1 , 2]} ,"name":"f"}', {"f"}) == ("f", '{"a":[1 , 2]}')


@given(value=ARGUMENTS, rest=st.text(max_size=5))
def test_the_scanner_finds_the_end_of_an_object(value: dict[str, object], rest: str) -> None:
    text = json.dumps(value, ensure_ascii=False)
    scanner = ObjectScanner()
    assert scanner.take(text + rest) == len(text)
    assert scanner.is_complete
