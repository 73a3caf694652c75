"""The files of one adapter as bytes: size limits, reading a directory, and the content digest. Interprets none."""

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from adapters.errors import AdapterInvalid, AdapterTooLarge
from adapters.manifest import MANIFEST_FILE, ManifestDraft
from adapters.tensor_file import WEIGHTS_FILE

CONFIG_FILE = "adapter_config.json"
CARD_FILE = "README.md"

DEFAULT_MAX_WEIGHTS_BYTES = 512 * 1024 * 1024
"""What a server takes unless it is told otherwise: LoRA of rank 64 on every linear module of an 8B model is 335 MB in
bfloat16; and in memory, in float32, such a file fills the default budget of resident adapters, and no more."""
MAX_WEIGHTS_BYTES = 8 * 1024 * 1024 * 1024
"""What is ever read, whatever a server takes: rank 256 on every linear module of a 70B model is 6.6 GB in bfloat16."""
MAX_FILE_BYTES = {
    CONFIG_FILE: 256 * 1024,
    WEIGHTS_FILE: MAX_WEIGHTS_BYTES,
    MANIFEST_FILE: 2 * 1024 * 1024,
    CARD_FILE: 1024 * 1024,
}
_NO_DIRECTORY = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """Raw bytes of an adapter's files; None where the adapter has no such file. Every size is within its limit."""

    config: bytes
    weights: bytes
    manifest: bytes | None = None
    card: bytes | None = None

    def __post_init__(self) -> None:
        for name, content in self.by_name().items():
            if len(content) > MAX_FILE_BYTES[name]:
                raise AdapterTooLarge(name, f"{len(content)} bytes are over the limit of {MAX_FILE_BYTES[name]}")

    def by_name(self) -> dict[str, bytes]:
        """The files that exist, by file name."""
        named = {
            CONFIG_FILE: self.config,
            WEIGHTS_FILE: self.weights,
            MANIFEST_FILE: self.manifest,
            CARD_FILE: self.card,
        }
        return {name: content for name, content in named.items() if content is not None}


def read_adapter_directory(path: Path) -> AdapterFiles:
    """Read the files of an adapter directory, following no link out of it.

    Raises AdapterInvalid when a required file is missing, AdapterTooLarge before reading a file over its limit. No
    message holds the path: it may be read by someone who should not know it.
    """
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_DIRECTORY:
            raise AdapterInvalid("path", f"cannot be opened: {error.strerror}") from error
        raise AdapterInvalid("path", "not a directory") from None
    try:
        return read_adapter_descriptor(directory)
    finally:
        os.close(directory)


def read_adapter_descriptor(directory: int, *, max_weights_bytes: int = MAX_WEIGHTS_BYTES) -> AdapterFiles:
    """Read the files in an open directory. Raises as `read_adapter_directory`."""
    config = _read_file(directory, CONFIG_FILE)
    if config is None:
        raise AdapterInvalid(CONFIG_FILE, "missing")
    weights = _read_file(directory, WEIGHTS_FILE, limit=max_weights_bytes)
    if weights is None:
        raise AdapterInvalid(WEIGHTS_FILE, "missing (adapter_model.bin is a pickle and is never read)")
    return AdapterFiles(config, weights, _read_file(directory, MANIFEST_FILE), _read_file(directory, CARD_FILE))


def read_beside(directory: Path, name: str, *, limit: int) -> bytes | None:
    """A file of another name that lies in an adapter's directory; None where there is none. Raises AdapterInvalid."""
    return _read_at(directory / name, name, limit=limit)


def _read_file(directory: int, name: str, *, limit: int | None = None) -> bytes | None:
    return _read_at(name, name, limit=MAX_FILE_BYTES[name] if limit is None else limit, directory=directory)


def _read_at(path: str | Path, name: str, *, limit: int, directory: int | None = None) -> bytes | None:
    """The bytes of a regular file, if it is there. Raises AdapterInvalid naming the file."""
    try:
        # O_NONBLOCK: opening a FIFO must not wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        with open(descriptor, "rb", closefd=True) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise AdapterInvalid(name, "not a regular file")
            if status.st_size > limit:
                raise AdapterTooLarge(name, f"over the limit of {limit} bytes")
            return file.read(status.st_size)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = "is a symbolic link" if error.errno == errno.ELOOP else f"cannot be read: {error.strerror}"
        raise AdapterInvalid(name, reason) from error


def content_digest(config: bytes, weights: bytes, draft: ManifestDraft) -> str:
    """sha256 in hex over the tagged digests of the canonical files: PEFT's two and the maker's part of hotprompt.json.

    The name is not in it, so that equal content is one adapter under every name; nor is the model card, which is prose.
    """
    outer = hashlib.sha256(b"hotprompt adapter 1\n")
    for tag, content in ((CONFIG_FILE, config), (WEIGHTS_FILE, weights), (MANIFEST_FILE, draft.canonical_json())):
        outer.update(f"{hashlib.sha256(content).hexdigest()}  {tag}\n".encode())
    return outer.hexdigest()
