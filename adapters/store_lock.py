"""StoreLock: the turn to write to a store, one process and thread at a time. Knows nothing of what is written."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.errors import StoreFailure, StoreReadOnly

READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
"""What a process meets that may read a directory and not write to it."""


class StoreLock:
    """A file that is locked while somebody writes; the system lets go of it when its holder dies."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def check(self) -> None:
        """Raises StoreReadOnly where this process may not write, StoreFailure where the disk refuses."""
        with _refusals_told(), open(self._path, "a"):
            pass

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the turn and keep it inside the block. Raises as `check`, also for what the disk refuses inside."""
        with _refusals_told(), open(self._path, "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@contextmanager
def _refusals_told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        if error.errno in READ_ONLY:
            raise StoreReadOnly(
                f"the store may only be read here ({reason}); change adapters where it may be written"
            ) from error
        raise StoreFailure(f"the store cannot be written: {reason}") from error
