"""What a terminal shows of answers: Markdown block by block, and nothing that could steer it."""

import re
from io import StringIO

import pytest
from rich.console import Console

from client.answer_view import markdown_view, plain_view
from client.markdown_blocks import finished_length
from client.safe_text import one_line, printable

STYLES = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[1A|\x1b\[2K|\r")
"""What rich writes by itself: colours, the cursor hidden and shown, lines that are drawn anew."""

HOSTILE = [
    "\x1b[2J\x1b[H",
    "\x1b]0;title\x07",
    "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\x9b31m",
    "\x08\x08\x08",
    "\rover",
    "&#27;[2J",
    "&#x9b;31m",
    "&#13;over&#8;",
    "[red]markup[/red] [link=http://evil.example]x[/link]",
    "[text](http://evil.example/\x1b[2J)",
    "`\x1b[2J`",
    "```\x1b]52;c;ZXZpbA==\x07\n\x1b[2J\n```",
    "a\u202eb\u2066c",
    "half \ud800 character",
]


def _shown(text: str, *, step: int, width: int = 60) -> str:
    output = StringIO()
    console = Console(file=output, width=width, height=20, force_terminal=True, color_system="standard")
    with markdown_view(console) as show:
        for start in range(0, len(text), step):
            show(text[start : start + step])
    return output.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_that_a_model_says_can_steer_the_terminal(text: str) -> None:
    plain = StringIO()
    with plain_view(Console(file=plain, width=60)) as show:
        show(text)
    for shown in (plain.getvalue(), STYLES.sub("", _shown(text, step=3))):
        assert all(letter.isprintable() or letter in "\n\t" or letter == "\u200d" for letter in shown), ascii(shown)
        assert "\u202e" not in shown
        shown.encode()


def test_printable_keeps_every_script() -> None:
    assert printable("a\x1b[2J\x07\r\x9bb\n\tc 下👩\u200d💻") == "a[2Jb\n\tc 下👩\u200d💻"
    assert one_line(" a\nb\x1b\t c ") == "a b c"


def test_markdown_is_rendered_and_tags_and_links_are_seen() -> None:
    text = "# Title\n\nSome **bold** <b>tag</b> and [here](https://x.example/y).\n\n<p>\nkept\n</p>\n\n- one\n- two"
    shown = STYLES.sub("", _shown(text, step=7, width=100))
    assert "**" not in shown
    for part in ("Title", "bold", "<b>tag</b>", "https://x.example/y", "<p>", "kept", "• one"):
        assert part in shown, part


def test_a_finished_block_is_written_once_however_long_the_answer_grows() -> None:
    text = "The first paragraph.\n\n" + "".join(f"Paragraph {i} of many.\n\n" for i in range(30)) + "The end."
    shown = STYLES.sub("", _shown(text, step=len(text)))
    assert shown.count("The first paragraph.") == 1
    assert not re.search(r"(\x1b\[1A\x1b\[2K){3}", _shown(text, step=5)), "one block is drawn anew, not the answer"


@pytest.mark.parametrize(
    ("text", "finished"),
    [
        ("", ""),
        ("one", ""),
        ("one\n\n", ""),
        ("one\n\nt", "one\n\n"),
        ("one\n\n\ntwo\n\nthree", "one\n\n\ntwo\n\n"),
        ("- item\n\n  of the same", ""),
        ("- item\n\n    code\n\nnext", "- item\n\n    code\n\n"),
        ("```\na\n\nb", ""),
        ("```\na\n\nb\n```\n\nc", "```\na\n\nb\n```\n\n"),
        ("````\n```\n\nb\n````\n\nc", "````\n```\n\nb\n````\n\n"),
        ("~~~\n```\n\nb", ""),
        ("```py\n``` x\n\nb", ""),
    ],
)
def test_blocks_end_where_nothing_that_follows_can_change_them(text: str, finished: str) -> None:
    assert text[: finished_length(text)] == finished
