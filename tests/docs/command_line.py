"""The command line as docs name it: its commands, and what each of them takes. Runs none."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from hotprompt import app

PROGRAM = "hotprompt"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A command that does something; `words` are those that call it. `command` is the parser of what follows them."""

    words: tuple[str, ...]
    command: Any

    @property
    def options(self) -> list[Any]:
        return [param for param in self.command.params if param.param_type_name == "option"]

    @property
    def arguments(self) -> list[Any]:
        return [param for param in self.command.params if param.param_type_name == "argument"]

    @property
    def flags(self) -> set[str]:
        return {flag for option in self.options for flag in (*option.opts, *option.secondary_opts)} | {"--help"}


def leaves() -> list[Leaf]:
    """Every command, in the order of --help."""
    return list(_below((PROGRAM,), typer.main.get_command(app)))


def _below(words: tuple[str, ...], command: Any) -> Iterator[Leaf]:
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        yield Leaf(words, command)
        return
    for name, subcommand in subcommands.items():
        yield from _below((*words, name), subcommand)


def parse(words: Sequence[str]) -> tuple[Leaf, dict[str, Any]]:
    """The command that is called, and its parameters by name, as it would get them.

    Raises AssertionError for an unknown command, and the parser's own error for wrong flags.
    """
    for leaf in leaves():
        if tuple(words[: len(leaf.words)]) == leaf.words:
            with leaf.command.make_context(leaf.words[-1], list(words[len(leaf.words) :])) as context:
                return leaf, dict(context.params)
    raise AssertionError(f"there is no such command: {' '.join(words)}")
