"""An adapter as one tar of its files: written to the same bytes everywhere, read member by member. Knows no store.

Only what is written so is read: plain ustar members with an adapter's own file names. Whatever a tar may hold beside
them (links, devices, directories, paths, sparse files, pax and GNU extensions) is refused at its header, unread.
"""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from tarfile import BLOCKSIZE, TarInfo
from typing import BinaryIO

from adapters.errors import AdapterInvalid, AdapterTooLarge
from adapters.files import CARD_FILE, CONFIG_FILE, MAX_FILE_BYTES, AdapterFiles
from adapters.manifest import MANIFEST_FILE
from adapters.tensor_file import WEIGHTS_FILE

MAX_PADDING_BYTES = 64 * 1024
"""What may follow the end, all zeros: other programs fill their last record up."""

CHUNK_BYTES = 1 << 20
TAR = "tar"
_PLAIN_FILE = (tarfile.REGTYPE, tarfile.AREGTYPE)
_WHAT_IT_IS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.DIRTYPE: "a directory",
    tarfile.FIFOTYPE: "a FIFO",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
    tarfile.GNUTYPE_LONGNAME: "a GNU extension",
    tarfile.GNUTYPE_LONGLINK: "a GNU extension",
    tarfile.XHDTYPE: "a pax extension (write it with --format=ustar)",
    tarfile.XGLTYPE: "a pax extension (write it with --format=ustar)",
    tarfile.SOLARIS_XHDTYPE: "a pax extension (write it with --format=ustar)",
}


def tar_chunks(files: AdapterFiles) -> Iterator[bytes]:
    """The tar of an adapter, in pieces of up to a MiB.

    Equal files give equal bytes, with no time, owner or mode of this machine in them.
    """
    for name, content in files.by_name().items():
        member = TarInfo(name)
        member.size = len(content)
        yield member.tobuf(tarfile.USTAR_FORMAT)
        for start in range(0, len(content), CHUNK_BYTES):
            yield content[start : start + CHUNK_BYTES]
        yield bytes(-len(content) % BLOCKSIZE)
    yield bytes(2 * BLOCKSIZE)


def tar_size(files: AdapterFiles) -> int:
    """How many bytes the tar of an adapter has."""
    blocks = [1 + -(-len(content) // BLOCKSIZE) for content in files.by_name().values()]
    return (sum(blocks) + 2) * BLOCKSIZE


def read_tar_file(path: Path) -> AdapterFiles:
    """Read the tar in a file, which is not a pipe. Raises AdapterInvalid, AdapterTooLarge."""
    try:
        with open(path, "rb") as file:
            return read_tar(file)
    except OSError as error:
        raise AdapterInvalid(TAR, f"cannot be read: {error.strerror or type(error).__name__}") from error


def read_tar(file: BinaryIO) -> AdapterFiles:
    """Read a tar from its beginning to its end, each member within the limit of its name and what is there.

    Raises AdapterInvalid for anything but an adapter's files, each there once; AdapterTooLarge before a file over its
    limit is read. Raises OSError.
    """
    found: dict[str, bytes] = {}
    reader = _Reader(file)
    while (header := reader.exactly(BLOCKSIZE)) != bytes(BLOCKSIZE):
        member = _member(header)
        if member.name in found:
            raise AdapterInvalid(member.name, "is there twice")
        found[member.name] = reader.exactly(member.size)
        if any(reader.exactly(-member.size % BLOCKSIZE)):
            raise AdapterInvalid(member.name, "something is hidden behind it")
    _check_end(reader)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if name not in found:
            raise AdapterInvalid(name, "missing")
    return AdapterFiles(found[CONFIG_FILE], found[WEIGHTS_FILE], found.get(MANIFEST_FILE), found.get(CARD_FILE))


class _Reader:
    """Reads a file from its beginning; what a header announces is not allocated before it is known to be there."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.remaining = file.seek(0, os.SEEK_END)
        file.seek(0)

    def exactly(self, size: int) -> bytes:
        """The next bytes. Raises AdapterInvalid where there are fewer."""
        if size > self.remaining:
            raise AdapterInvalid(TAR, "ends too early")
        self.remaining -= size
        content = self._file.read(size)
        if len(content) != size:
            raise AdapterInvalid(TAR, "has changed while it was read")
        return content


def _member(header: bytes) -> TarInfo:
    """What one header announces, if it may be there."""
    try:
        member = TarInfo.frombuf(header, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError):
        raise AdapterInvalid(TAR, "a header is damaged, or this is no tar (it may be compressed: unpack it)") from None
    if member.type not in _PLAIN_FILE:
        what = _WHAT_IT_IS.get(member.type, f"of type {member.type!r}")
        raise AdapterInvalid(TAR, f"{member.name[:80]!r} is {what}; only plain files may be in it")
    if member.name not in MAX_FILE_BYTES:
        known = ", ".join(MAX_FILE_BYTES)
        raise AdapterInvalid(TAR, f"{member.name[:80]!r} is no file of an adapter; there may be {known}")
    if member.linkname:
        raise AdapterInvalid(member.name, "is a link")
    if not 0 <= member.size <= MAX_FILE_BYTES[member.name]:
        raise AdapterTooLarge(member.name, f"over the limit of {MAX_FILE_BYTES[member.name]} bytes")
    return member


def _check_end(reader: _Reader) -> None:
    """The second block of zeros, and nothing else but zeros."""
    if any(reader.exactly(BLOCKSIZE)):
        raise AdapterInvalid(TAR, "has a block of zeros before its end")
    if reader.remaining > MAX_PADDING_BYTES or any(reader.exactly(reader.remaining)):
        raise AdapterInvalid(TAR, "something follows its end")


def write_tar_file(path: Path, files: AdapterFiles) -> None:
    """Write an adapter's tar; a file that is there is replaced once the new one is whole. Raises OSError."""
    staging = path.with_name(f"{path.name}.part")
    try:
        with open(staging, "wb") as file:
            file.writelines(tar_chunks(files))
            file.flush()
            os.fsync(file.fileno())
        os.replace(staging, path)
    except OSError:
        staging.unlink(missing_ok=True)
        raise
