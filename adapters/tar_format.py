"""An adapter as one tar of its files: written to the same bytes everywhere, read member by member. Knows no store.

Only what `tar_of` writes is read: plain ustar members with an adapter's own file names. Whatever a tar may hold beside
them (links, devices, directories, paths, sparse files, pax and GNU extensions) is refused at its header, unread.
"""

import os
import tarfile
from pathlib import Path
from tarfile import BLOCKSIZE, TarInfo
from typing import BinaryIO

from adapters.errors import AdapterInvalid, AdapterTooLarge
from adapters.files import CARD_FILE, CONFIG_FILE, MAX_FILE_BYTES, AdapterFiles
from adapters.manifest import MANIFEST_FILE
from adapters.tensor_file import WEIGHTS_FILE

MAX_PADDING_BYTES = 64 * 1024
"""What may follow the end, all zeros: other programs fill their last record up."""

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


def tar_of(files: AdapterFiles) -> bytes:
    """The tar of an adapter: equal files give equal bytes, with no time, owner or mode of this machine in them."""
    parts = []
    for name, content in files.by_name().items():
        member = TarInfo(name)
        member.size = len(content)
        parts += [member.tobuf(tarfile.USTAR_FORMAT), content, bytes(-len(content) % BLOCKSIZE)]
    return b"".join([*parts, bytes(2 * BLOCKSIZE)])


def read_tar_file(path: Path) -> AdapterFiles:
    """Read the tar in a file. Raises AdapterInvalid, AdapterTooLarge."""
    try:
        with open(path, "rb") as file:
            return read_tar(file)
    except OSError as error:
        raise AdapterInvalid(TAR, f"cannot be read: {error.strerror or type(error).__name__}") from error


def read_tar(file: BinaryIO) -> AdapterFiles:
    """Read a tar from its beginning to its end, each member within the limit of its name.

    Raises AdapterInvalid for anything but an adapter's files, each there once; AdapterTooLarge before a file over its
    limit is read. Raises OSError.
    """
    found: dict[str, bytes] = {}
    while (header := _exactly(file, BLOCKSIZE)) != bytes(BLOCKSIZE):
        member = _member(header)
        if member.name in found:
            raise AdapterInvalid(member.name, "is there twice")
        found[member.name] = _exactly(file, member.size)
        if any(_exactly(file, -member.size % BLOCKSIZE)):
            raise AdapterInvalid(member.name, "something is hidden behind it")
    _check_end(file)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if name not in found:
            raise AdapterInvalid(name, "missing")
    return AdapterFiles(found[CONFIG_FILE], found[WEIGHTS_FILE], found.get(MANIFEST_FILE), found.get(CARD_FILE))


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


def _check_end(file: BinaryIO) -> None:
    """The second block of zeros, and nothing else but zeros."""
    if any(_exactly(file, BLOCKSIZE)):
        raise AdapterInvalid(TAR, "has a block of zeros before its end")
    padding = file.read(MAX_PADDING_BYTES + 1)
    if len(padding) > MAX_PADDING_BYTES or any(padding):
        raise AdapterInvalid(TAR, "something follows its end")


def _exactly(file: BinaryIO, size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise AdapterInvalid(TAR, "ends too early")
    return content


def write_tar_file(path: Path, files: AdapterFiles) -> None:
    """Write an adapter's tar; a file that is there is replaced once the new one is whole. Raises OSError."""
    staging = path.with_name(f"{path.name}.part")
    try:
        with open(staging, "wb") as file:
            file.write(tar_of(files))
            file.flush()
            os.fsync(file.fileno())
        os.replace(staging, path)
    except OSError:
        staging.unlink(missing_ok=True)
        raise
