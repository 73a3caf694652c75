"""Where an adapter may come from, as text and as a Location; which locations a server allows. Opens nothing.

    /srv/adapters/support            a directory of this machine, below one of --adapter-roots
    hf://org/repo@revision           a repository of the hub
    s3://bucket/path, gs://, az://   a bucket (a container), by the endpoint and the credentials of the environment

A location names no host, no port and no credentials: those are the operator's alone.
"""

import re
from dataclasses import dataclass
from typing import Literal

from server.sources.errors import SourceRefused

Scheme = Literal["file", "hf", "s3", "gs", "az"]

MAX_DEPTH = 64
DEFAULT_REVISION = "main"
FORMS = "an absolute path, hf://org/repo@revision, s3://bucket/path, gs://bucket/path or az://container/path"

_COMPONENT = re.compile(r"[A-Za-z0-9._=+@-]{1,255}")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_REPO_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_DOTS = (".", "..")


@dataclass(frozen=True, slots=True)
class Location:
    """A place that was named legally; `parts` are the components of its path, a bucket or an organisation first."""

    scheme: Scheme
    parts: tuple[str, ...]
    revision: str | None = None
    """Of a hub's repository only."""

    def __str__(self) -> str:
        path = "/".join(self.parts)
        if self.scheme == "file":
            return f"/{path}"
        return f"{self.scheme}://{path}" + (f"@{self.revision}" if self.revision else "")


class AllowedSources:
    """The prefixes, as `hf://`, `hf://org` or `s3://bucket/path`, below which adapters may be fetched."""

    def __init__(self, prefixes: tuple[str, ...]) -> None:
        self._prefixes = tuple(_split(prefix) for prefix in prefixes)

    def check(self, location: Location) -> None:
        """Raises SourceRefused for a location below none of the prefixes."""
        allowed = [parts for scheme, parts in self._prefixes if scheme == location.scheme]
        if not allowed:
            raise SourceRefused(f"this server fetches nothing from {location.scheme}://: --adapter-sources names none")
        if not any(location.parts[: len(parts)] == parts for parts in allowed):
            raise SourceRefused("the source is not below one of --adapter-sources")


def parse_location(text: str) -> Location:
    """Read a source as a client writes it. Raises SourceRefused for what is none."""
    if text.startswith("/"):
        return Location("file", tuple(part for part in text.split("/") if part not in ("", ".")))
    scheme, parts = _split(text)
    match scheme:
        case "hf":
            return _hub_location(text)
        case "s3" | "gs" | "az":
            return _bucket_location(scheme, parts)
        case _:
            raise SourceRefused(f"a source is {FORMS}")


def _split(text: str) -> tuple[str, tuple[str, ...]]:
    """Scheme and components; one slash at the end is nothing."""
    scheme, _, path = text.partition("://")
    return scheme, tuple(path.removesuffix("/").split("/")) if path else ()


def _hub_location(text: str) -> Location:
    repo, at, revision = text.removeprefix("hf://").partition("@")
    parts = tuple(repo.split("/"))
    if len(parts) != 2 or not all(_REPO_PART.fullmatch(part) for part in parts):
        raise SourceRefused("a hub's repository is named hf://org/repo or hf://org/repo@revision")
    if not at:
        return Location("hf", parts, DEFAULT_REVISION)
    pieces = revision.split("/")
    if len(revision) > 255 or not all(_COMPONENT.fullmatch(piece) and piece not in _DOTS for piece in pieces):
        raise SourceRefused("a revision is a branch, a tag or a commit of up to 255 of A-Z a-z 0-9 . _ = + @ - /")
    return Location("hf", parts, revision)


def _bucket_location(scheme: Literal["s3", "gs", "az"], parts: tuple[str, ...]) -> Location:
    if not parts or _BUCKET.fullmatch(parts[0]) is None:
        raise SourceRefused(f"{scheme}:// is followed by the name of a bucket, 2 to 255 of A-Z a-z 0-9 . _ -")
    if len(parts) > MAX_DEPTH or not all(_COMPONENT.fullmatch(part) and part not in _DOTS for part in parts[1:]):
        raise SourceRefused(
            f"a path in a bucket has up to {MAX_DEPTH} components of 1 to 255 of A-Z a-z 0-9 . _ = + @ -, none '..'"
        )
    return Location(scheme, parts)
