"""docs/commands.md has every command and flag, and no other."""

from tests.docs.command_line import leaves
from tests.docs.commands_page import PAGE, page


def test_the_page_is_what_the_generator_writes() -> None:
    assert PAGE.read_text() == page(), "python -m tests.docs.commands_page > docs/commands.md"


def test_every_flag_is_in_it() -> None:
    written = PAGE.read_text()
    for leaf in leaves():
        section = written.partition(f"\n## {' '.join(leaf.words)}\n")[2].partition("\n## ")[0]
        assert not [flag for flag in leaf.flags - {"--help"} if f"`{flag}`" not in section], leaf.words
