"""Parcel: the files of one adapter while they come in, within their limits and counted. Knows no source.

Only the files that an adapter has are asked for by name, so nothing else is ever fetched.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

from adapters.errors import AdapterInvalid, AdapterTooLarge
from adapters.files import CARD_FILE, CONFIG_FILE, MAX_FILE_BYTES, AdapterFiles
from adapters.manifest import MANIFEST_FILE
from adapters.tensor_file import WEIGHTS_FILE
from server.sources.errors import SourceUnavailable

FILE_NAMES = tuple(MAX_FILE_BYTES)
"""All that is ever fetched."""


@dataclass(slots=True)
class Progress:
    """How far the bytes of an adapter have come; the total is None until the source has told it."""

    fetched_bytes: int = 0
    total_bytes: int | None = None


class Parcel:
    """Takes the pieces of each file as they come, and counts them in a Progress that others read."""

    def __init__(self, progress: Progress, *, max_weights_bytes: int) -> None:
        self._limits = MAX_FILE_BYTES | {WEIGHTS_FILE: max_weights_bytes}
        self._progress = progress
        self._contents: dict[str, BytesIO] = {}  # grows in place, and gives its bytes away without a copy
        self._missing: dict[str, int] = {}  # bytes of a file that have not come yet

    def expect(self, sizes: Mapping[str, int]) -> None:
        """Say which files there are, and of how many bytes, before the first one comes.

        Raises AdapterInvalid where a file is missing that an adapter must have, and AdapterTooLarge.
        """
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            if name not in sizes:
                note = " (adapter_model.bin is a pickle and is never read)" if name == WEIGHTS_FILE else ""
                raise AdapterInvalid(name, f"missing{note}")
        for name, size in sizes.items():
            if size > self._limits[name]:
                flag = " (--max-adapter-size)" if name == WEIGHTS_FILE else ""
                raise AdapterTooLarge(name, f"{size} bytes are over the limit of {self._limits[name]}{flag}")
        self._contents = {name: BytesIO() for name in sizes}
        self._missing = dict(sizes)
        self._progress.total_bytes = sum(sizes.values())

    def take(self, name: str, piece: bytes) -> None:
        """Keep the next piece of a file. Raises SourceUnavailable for more bytes than were said."""
        if len(piece) > self._missing[name]:
            raise SourceUnavailable(f"{name}: the source gives more bytes than it said")
        self._missing[name] -= len(piece)
        self._contents[name].write(piece)
        self._progress.fetched_bytes += len(piece)

    def fill(self, files: AdapterFiles) -> None:
        """Take all files of an adapter at once."""
        sizes = {name: len(content) for name, content in files.by_name().items()}
        self.expect(sizes)
        self._contents = {name: BytesIO(content) for name, content in files.by_name().items()}
        self._missing = dict.fromkeys(sizes, 0)
        self._progress.fetched_bytes = sum(sizes.values())

    def files(self) -> AdapterFiles:
        """All that has come. Raises SourceUnavailable for a file that ended too early."""
        for name, missing in self._missing.items():
            if missing:
                raise SourceUnavailable(f"{name}: the source ended {missing} bytes before it should")
        contents = {name: content.getvalue() for name, content in self._contents.items()}
        return AdapterFiles(
            contents[CONFIG_FILE], contents[WEIGHTS_FILE], contents.get(MANIFEST_FILE), contents.get(CARD_FILE)
        )
