"""docs/commands.md has every command and flag, and no other."""

from tests.docs.command_line import leaves
from tests.docs.commands_page import PAGE, page


def test_the_page_is_what_the_generator_writes() -> None:
    assert PAGE.read_text() == page(), "python -m tests.docs.commands_page > docs/commands.md"


def test_every_flag_is_in_it() -> None:
    flags = {flag for leaf in leaves() for flag in leaf.flags}
    assert len(flags) > 50
    assert not [flag for flag in flags if f"`{flag}`" not in page() and f"`{flag}`," not in page() and flag != "--help"]
