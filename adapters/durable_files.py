"""Writing that survives a crash: bytes and directory entries are on the disk on return. Knows no adapters."""

import os
from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    """Write a new file and flush it to the disk; it must not exist yet. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        written = 0
        while written < len(content):
            written += os.write(descriptor, memoryview(content)[written:])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
