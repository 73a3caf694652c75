"""ReasoningParser: thoughts apart from the answer, the same however the text was cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.text.answer_events import ContentText, ReasoningText
from server.text.reasoning import ReasoningParser, Thoughts, has_think_tags, thoughts_behind

SNIPPETS = ["<think>", "</think>", "<thi", "nk>", "</", "<", "\n", "\n\n", " ", "a", "Hmm", "Well."]
MESSY = st.lists(st.sampled_from(SNIPPETS), max_size=15).map("".join)
CUTS = st.lists(st.integers(1, 6), max_size=40)


def parse(parts: list[str], *, is_open: bool, is_bound: bool = False) -> tuple[str, str]:
    """All thoughts and all content; thoughts must come first."""
    parser = ReasoningParser(is_open=is_open, is_bound=is_bound)
    events = [event for part in parts for event in parser.decode(part)] + parser.flush()
    kinds = [type(event) for event in events]
    assert kinds == sorted(kinds, key=[ReasoningText, ContentText].index)
    assert all(event.text for event in events)
    thoughts = "".join(event.text for event in events if isinstance(event, ReasoningText))
    return thoughts, "".join(event.text for event in events if isinstance(event, ContentText))


@given(text=MESSY, cuts=CUTS, is_open=st.booleans(), is_bound=st.booleans())
def test_result_does_not_depend_on_cuts(text: str, cuts: list[int], *, is_open: bool, is_bound: bool) -> None:
    ends = [0]
    for cut in cuts:
        ends.append(min(ends[-1] + cut, len(text)))
    parts = [text[start:end] for start, end in pairwise([*ends, len(text)])]
    assert parse(parts, is_open=is_open, is_bound=is_bound) == parse([text], is_open=is_open, is_bound=is_bound)


@pytest.mark.parametrize(
    ("text", "is_open", "expected"),
    [
        ("<think>\nHmm, 2 and 2.\n</think>\n\nIt is 4.\n", False, ("Hmm, 2 and 2.", "It is 4.\n")),
        ("\n<think>a</think>b", False, ("a", "b")),
        ("Hmm.\n</think>\n\nIt is 4.", True, ("Hmm.", "It is 4.")),
        ("<think>\n\n</think>\n\nIt is 4.", False, ("", "It is 4.")),
        (" It is <think>4</think>", False, ("", " It is <think>4</think>")),
        ("<think>a</think>b<think>c</think>", False, ("a", "b<think>c</think>")),
        ("<think>never ends", False, ("never ends", "")),
        ("<think>never ends </thi", False, ("never ends </thi", "")),
        ("<thi", False, ("", "<thi")),
        ("", False, ("", "")),
        ("", True, ("", "")),
    ],
)
def test_examples(text: str, expected: tuple[str, str], *, is_open: bool) -> None:
    assert parse([text], is_open=is_open) == expected


@pytest.mark.parametrize(
    ("text", "is_open", "expected"),
    [
        ("<think>\nHmm. \n</think>\n\n yes", False, ("Hmm.", " yes")),
        ("<think></think>\n\n\n\nyes\n", False, ("", "\n\nyes\n")),
        ("Hmm. </think>\n\n{}", True, ("Hmm.", "{}")),
        (" <think>a</think>", False, ("", " <think>a</think>")),
        ("<think>a</think>\n", False, ("a", "")),
        ("<think>a", False, ("a", "")),
        ("<thi", False, ("", "<thi")),
    ],
)
def test_white_space_of_a_form_is_content(text: str, expected: tuple[str, str], *, is_open: bool) -> None:
    assert parse([text], is_open=is_open, is_bound=True) == expected


def test_which_models_think() -> None:
    assert has_think_tags("{{ '<think>' }}…</think>", {})
    assert has_think_tags("{{ messages }}", {"</think>": 7})
    assert not has_think_tags("{{ messages }}", {"think": 7})


def test_prompts_that_open_and_close_thoughts() -> None:
    assert thoughts_behind("<|im_start|>assistant\n<think>\n") is Thoughts.OPEN
    assert thoughts_behind("<|im_start|>assistant\n") is Thoughts.POSSIBLE
    assert thoughts_behind("<|im_start|>assistant\n<think>\n\n</think>\n\n") is Thoughts.NONE
