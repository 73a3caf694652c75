"""A flag of the command line that may stand alone or have a value. Knows no settings."""

from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand


class SweepCommand(TyperCommand):
    """A command whose `--sweep` alone means `--sweep default`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give the flag its value where it has none."""
        return super().parse_args(ctx, with_value(args, "--sweep", "default"))


def with_value(arguments: Sequence[str], flag: str, value: str) -> list[str]:
    """The arguments, with `value` behind each `flag` that has none: at the end, or before another flag."""
    given: list[str] = []
    for place, argument in enumerate(arguments):
        given.append(argument)
        following = arguments[place + 1 : place + 2]
        if argument == flag and (not following or following[0].startswith("-")):
            given.append(value)
    return given
