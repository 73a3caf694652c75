"""Snippets are cut into the commands that a shell would run."""

import pytest

from tests.docs.shell import commands_of


@pytest.mark.parametrize(
    ("snippet", "commands"),
    [
        ("a b  # c\nd", [["a", "b"], ["d"]]),
        ("a 'b # c\n d' \"e f\"g", [["a", "b # c\n d", "e fg"]]),
        ("X=1 Y='2 3' a && b | c; d", [["a"], ["b"], ["c"], ["d"]]),
        ("a \\\n  b", [["a", "b"]]),
        ("a > out 2>&1\nb <<'E'\nx y\nE\nc", [["a"], ["b"], ["c"]]),
        ("a x#y --b=c", [["a", "x#y", "--b=c"]]),
        ("# only\n\n", []),
        ("a ''", [["a", ""]]),
    ],
)
def test_commands(snippet: str, commands: list[list[str]]) -> None:
    assert commands_of(snippet) == commands


def test_what_is_not_understood_is_said() -> None:
    with pytest.raises(ValueError, match="not understood"):
        commands_of("a 'b")
