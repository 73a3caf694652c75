"""Fails where a page of the built site would load something from another host. Knows HTML and CSS, no script's mind.

Run by `make docs`: python .ci/check_site.py DIRECTORY
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

_LOADED = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "img": ("src", "srcset"),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
}
_ELSEWHERE = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
_IN_CSS = re.compile(r"""(?:url\(|@import)\s*["']?((?:[a-z]+:)?//[^"')]+)""", re.IGNORECASE)


class _Loads(HTMLParser):
    """What a page loads from elsewhere by itself; links that a reader may follow are not among it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in _LOADED.get(tag, ()) and value and _ELSEWHERE.match(value):
                self.found.append(f"<{tag} {name}={value}>")


def loads_from_elsewhere(directory: Path) -> Iterator[str]:
    """A line for each thing that a file of the site loads from another host."""
    for page in sorted(directory.rglob("*.html")):
        loads = _Loads()
        loads.feed(page.read_text())
        yield from (f"{page.relative_to(directory)}: {load}" for load in loads.found)
    for sheet in sorted([*directory.rglob("*.css"), *directory.rglob("*.svg"), *directory.rglob("*.html")]):
        for address in _IN_CSS.findall(sheet.read_text()):
            yield f"{sheet.relative_to(directory)}: {address}"


def main() -> None:
    """Print what was found, and exit with 1 where there was something, or no page at all."""
    directory = Path(sys.argv[1])
    pages = len(list(directory.rglob("*.html")))
    found = list(loads_from_elsewhere(directory))
    sys.stdout.write("".join(f"{line}\n" for line in found) or f"{pages} pages load nothing from other hosts\n")
    sys.exit(1 if found or not pages else 0)


if __name__ == "__main__":
    main()
