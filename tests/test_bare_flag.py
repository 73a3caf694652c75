"""`--sweep` with a value and without."""

import pytest

from client.bare_flag import with_value


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--sweep"], ["--sweep", "default"]),
        (["--sweep", "--seed", "1"], ["--sweep", "default", "--seed", "1"]),
        (["--sweep", "init=text", "--sweep"], ["--sweep", "init=text", "--sweep", "default"]),
        (["--seed", "1"], ["--seed", "1"]),
    ],
)
def test_a_flag_alone_gets_its_value(arguments: list[str], expected: list[str]) -> None:
    assert with_value(arguments, "--sweep", "default") == expected
