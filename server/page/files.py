"""The page's files, read and compressed once. Knows no route and no browser."""

import gzip
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

STATIC = Path(__file__).parent / "static"
INDEX = "index.html"

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""What is served; licences and notes beside the scripts are not."""


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file, plain and gzipped; `etag` is weak, as it stands for both."""

    media_type: str
    content: bytes
    gzipped: bytes
    etag: str


def read_page() -> Mapping[str, PageFile]:
    """All files of the page by their exact names, such as `text/en.js`."""
    return dict(_read(STATIC))


def _read(root: Path) -> Iterator[tuple[str, PageFile]]:
    for path in sorted(root.rglob("*")):
        if path.suffix in MEDIA_TYPES:
            content = path.read_bytes()
            yield (
                path.relative_to(root).as_posix(),
                PageFile(
                    media_type=MEDIA_TYPES[path.suffix],
                    content=content,
                    gzipped=gzip.compress(content, mtime=0),
                    etag=f'W/"{hashlib.sha256(content).hexdigest()[:32]}"',
                ),
            )
