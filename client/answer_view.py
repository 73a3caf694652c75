"""How an answer appears while it comes: as plain text, or as Markdown. Knows no server."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from markdown_it import MarkdownIt
from rich.console import Console, RenderableType
from rich.live import Live
from rich.markdown import Markdown
from rich.padding import Padding
from rich.text import Text

from client.markdown_blocks import finished_length
from client.safe_text import printable

REFRESHES_PER_SECOND = 12

Show = Callable[[str], None]


class ModelMarkdown(Markdown):
    """Markdown that a model wrote: tags are text and do not vanish, and a link shows where it leads."""

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False)
        self.markup = text
        self.parsed = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).parse(text)


@contextmanager
def plain_view(console: Console) -> Iterator[Show]:
    """Inside the block, pieces are written as they come."""
    ends_line = True

    def show(piece: str) -> None:
        nonlocal ends_line
        text = printable(piece)
        console.print(text, end="", markup=False, highlight=False, soft_wrap=True, emoji=False)
        ends_line = text.endswith("\n") if text else ends_line

    try:
        yield show
    finally:
        if not ends_line:
            console.print()


@contextmanager
def markdown_view(console: Console) -> Iterator[Show]:
    """Inside the block, finished blocks of the answer are written once, and the last one is drawn anew as it grows.

    So only the lines of one block ever change, and never more than the terminal has.
    """
    rest, num_blank = "", 0
    live = Live(console=console, refresh_per_second=REFRESHES_PER_SECOND, transient=True)

    def show(piece: str) -> None:
        nonlocal rest, num_blank
        rest += printable(piece)
        length = finished_length(rest)
        if length:
            live.update(Text())  # or it would be drawn once more, below its final form
            console.print(Padding(ModelMarkdown(rest[:length]), (num_blank, 0, 0, 0)))
            rest, num_blank = rest[length:], 1
        live.update(Padding(_last_lines(console, rest), (num_blank, 0, 0, 0)))

    try:
        with live:
            yield show
    finally:
        if rest.strip():
            console.print(Padding(ModelMarkdown(rest), (num_blank, 0, 0, 0)))


def _last_lines(console: Console, text: str) -> RenderableType:
    """The block as Markdown; where it is taller than the terminal, its end as it was written."""
    if text.count("\n") < console.height - 2 and len(text) < console.width * (console.height - 2):
        return ModelMarkdown(text)
    return Text("\n".join(text.split("\n")[-(console.height // 2) :]), style="dim")
