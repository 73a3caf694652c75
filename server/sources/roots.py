"""AdapterRoots: adapter directories on the server's own disk, below allow-listed roots only. Knows no network.

A path is walked from its root component by component, each opened in the one before it and none through a link, so
that what was checked is what is read.
"""

import os
from contextlib import ExitStack
from pathlib import Path

from adapters.files import DEFAULT_MAX_WEIGHTS_BYTES, AdapterFiles, read_adapter_descriptor
from server.sources.errors import SourceRefused, SourceUnavailable

MAX_PATH_CHARS = 4096
MAX_DEPTH = 64
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class AdapterRoots:
    """The directories below which adapters may be read. Without any, nothing may."""

    def __init__(self, roots: tuple[Path, ...], *, max_weights_bytes: int = DEFAULT_MAX_WEIGHTS_BYTES) -> None:
        self._max_weights_bytes = max_weights_bytes
        self._roots = tuple(Path(os.path.abspath(root)) for root in roots)

    def read(self, path: str) -> AdapterFiles:
        """The files of the adapter directory at an absolute path.

        Raises SourceRefused for a path outside the roots, SourceUnavailable where there is no directory or a link
        leads there, and AdapterInvalid, AdapterTooLarge as `read_adapter_directory`.
        """
        root, parts = self._locate(path)
        with ExitStack() as opened:
            directory = _open_root(root, opened)
            for part in parts:
                try:
                    directory = os.open(part, _DIRECTORY, dir_fd=directory)
                except OSError:
                    raise SourceUnavailable("no directory lies there, or a symbolic link leads to it") from None
                opened.callback(os.close, directory)
            return read_adapter_descriptor(directory, max_weights_bytes=self._max_weights_bytes)

    def check(self, path: str) -> None:
        """Raises SourceRefused for a path outside the roots, without looking at the disk."""
        self._locate(path)

    def _locate(self, path: str) -> tuple[Path, tuple[str, ...]]:
        """The root that a path lies below, and the components from there on."""
        if not self._roots:
            raise SourceRefused("this server reads no directories: it was started without --adapter-roots")
        if len(path) > MAX_PATH_CHARS or not path.startswith("/") or "\0" in path:
            raise SourceRefused(f"a directory is named by an absolute path of up to {MAX_PATH_CHARS} characters")
        try:
            os.fsencode(path)
        except UnicodeEncodeError:
            raise SourceRefused("the path is not one that this machine's file system can have") from None
        parts = tuple(part for part in path.split("/") if part not in ("", "."))
        if ".." in parts or len(parts) > MAX_DEPTH:
            raise SourceRefused(f"a path has no '..', and up to {MAX_DEPTH} components")
        for root in self._roots:
            held = root.parts[1:]
            if parts[: len(held)] == held:
                return root, parts[len(held) :]
        raise SourceRefused("the directory is not below one of --adapter-roots")


def _open_root(root: Path, opened: ExitStack) -> int:
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)  # the operator's own path: its links are meant
    except OSError as error:
        raise SourceUnavailable(f"the root of that directory cannot be opened: {error.strerror}") from None
    opened.callback(os.close, descriptor)
    return descriptor
