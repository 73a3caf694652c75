"""Counts the system calls that a block of Python makes through os, io and fcntl, and acts at one of them.

The functions that are replaced are those through which this code reaches the disk; the real ones do the work.
"""

import builtins
import errno
import fcntl
import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

KILLED = 77
"""Exit code of a process that ended at the call it was to end at."""

_OS_CALLS = (
    "open",
    "write",
    "fsync",
    "stat",
    "fstat",
    "lstat",
    "listdir",
    "scandir",
    "mkdir",
    "rmdir",
    "unlink",
    "rename",
    "replace",
)
CALLS: tuple[tuple[Any, str], ...] = (
    *((os, name) for name in _OS_CALLS),
    (os, "close"),
    (io, "open"),
    (builtins, "open"),
    (fcntl, "flock"),
)
REFUSABLE = tuple(call for call in CALLS if call != (os, "close"))
"""A file that could not be closed is still open: nobody is told of that, so it is not refused here."""

OPENING = {"open", "listdir", "scandir"}
WRITING = {"write", "fsync", "mkdir", "rename", "replace"}
REFUSALS: dict[int, set[str]] = {
    errno.ENOSPC: WRITING | {"open"},
    errno.EDQUOT: WRITING | {"open"},
    errno.EIO: WRITING | OPENING | {"stat", "fstat", "lstat", "rmdir", "unlink", "flock"},
    errno.EMFILE: OPENING,
    errno.EROFS: WRITING | {"open", "rmdir", "unlink"},
}
"""Which calls may fail with what."""


@contextmanager
def at_each_call(calls: tuple[tuple[Any, str], ...], act: Callable[[str, Callable[[], Any]], Any]) -> Iterator[None]:
    """Every call goes through `act(name, the real call)`, whose answer the caller gets."""
    with ExitStack() as patches:
        for module, name in calls:
            patches.enter_context(mock.patch.object(module, name, _replacement(getattr(module, name), name, act)))
        yield


def _replacement(real: Any, name: str, act: Callable[[str, Callable[[], Any]], Any]) -> Any:
    def replacement(*arguments: Any, **named: Any) -> Any:
        return act(name, lambda: real(*arguments, **named))

    return replacement


@contextmanager
def killed_at(number: int, *, is_after: bool) -> Iterator[None]:
    """End this process at its Nth call, before it or after it, as a kill would: nothing is undone."""
    count = 0

    def act(_: str, real: Callable[[], Any]) -> Any:
        nonlocal count
        count += 1
        if count == number and not is_after:
            os._exit(KILLED)
        is_last = count == number
        try:
            return real()
        finally:
            if is_last:
                os._exit(KILLED)

    with at_each_call(CALLS, act):
        yield


class Refusal:
    """Makes the Nth call that may fail with an error do so; `has_refused` tells whether there was such a call."""

    def __init__(self, error: int, number: int) -> None:
        self.has_refused = False
        self._error = error
        self._number = number
        self._count = 0

    @contextmanager
    def active(self) -> Iterator[None]:
        with at_each_call(REFUSABLE, self._act):
            yield

    def _act(self, name: str, real: Callable[[], Any]) -> Any:
        if name in REFUSALS[self._error]:
            self._count += 1
            if self._count == self._number:
                self.has_refused = True
                raise OSError(self._error, os.strerror(self._error))
        return real()
