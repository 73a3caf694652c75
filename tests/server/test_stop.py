"""StopMatcher: the text ends before the stop string that is complete first, however the text was cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.text.stop import StopMatcher

TEXTS = st.text(alphabet="ab\n", max_size=40)
STOPS = st.lists(st.text(alphabet="ab\n", min_size=1, max_size=5), max_size=4)


def cut_off(text: str, stops: list[str]) -> tuple[str, bool]:
    """The definition: the first end of a stop string counts, and of those that end there the longest."""
    for end in range(len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


@given(text=TEXTS, stops=STOPS, cuts=st.lists(st.integers(0, 6), max_size=40))
def test_result_is_the_definition_for_every_cut(text: str, stops: list[str], cuts: list[int]) -> None:
    matcher = StopMatcher(stops)
    shown, rest = "", text
    for cut in [*cuts, len(text)]:
        shown += matcher.decode(rest[:cut])
        rest = rest[cut:]
        expected, _ = cut_off(text, stops)
        assert expected.startswith(shown)
    shown += matcher.flush()
    assert (shown, matcher.stopped) == cut_off(text, stops)


@given(text=TEXTS, stops=STOPS)
def test_no_more_is_held_back_than_may_become_a_stop_string(text: str, stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    shown = matcher.decode(text)
    held = matcher.flush()
    if not matcher.stopped:
        assert shown + held == text
        assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)


@pytest.mark.parametrize(
    ("pieces", "stops", "expected"),
    [
        (["one\n", "\nHuman", ": two"], ["\n\nHuman:"], ["one", "", ""]),
        (["a<", "b<", "|end|>c"], ["<|end|>"], ["a", "<b", ""]),
        (["abc"], [], ["abc"]),
        (["abc"], [""], ["abc"]),
    ],
)
def test_examples(pieces: list[str], stops: list[str], expected: list[str]) -> None:
    matcher = StopMatcher(stops)
    assert [matcher.decode(piece) for piece in pieces] == expected


def test_nothing_comes_after_the_stop() -> None:
    matcher = StopMatcher(["x"])
    assert matcher.decode("axb") == "a"
    assert matcher.stopped
    assert matcher.decode("more") + matcher.flush() == ""
