"""Writing that survives a crash: bytes and directory entries are on the disk on return. Knows no adapters."""

import os
from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    """Write a new file and flush it to the disk; it must not exist yet. Raises OSError."""
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def flush_file(path: Path) -> None:
    """Flush a file that another library wrote. Raises OSError."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def flush_directory(path: Path) -> None:
    """Flush a directory's entries, so that a rename in it is on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
