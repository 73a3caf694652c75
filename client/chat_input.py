"""The line that a user types: with editing and a history where the terminal has them. Knows no chat."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

MAX_LINES = 1000

ReadLine = Callable[[], str]


def line_reader(history: Path) -> ReadLine:
    """What reads the next line from the terminal and remembers it in `history`, for its owner alone.

    The reader raises EOFError and KeyboardInterrupt as `input` does. Without readline, or where the file cannot be
    written, nothing is remembered.
    """
    try:
        import readline
    except ImportError:
        return _read
    readline.set_auto_history(False)
    try:
        _make_private(history)
        readline.read_history_file(history)
    except OSError:
        return lambda: _remembered(_read(), readline.add_history)
    readline.set_history_length(MAX_LINES)

    def remember(line: str) -> None:
        readline.add_history(line)
        with suppress(OSError):
            readline.append_history_file(1, history)

    return lambda: _remembered(_read(), remember)


def _read() -> str:
    """One line. The prompt stays out of what is written to a file or a pipe."""
    if sys.stdout.isatty():
        return input("> ")
    sys.stderr.write("> ")
    sys.stderr.flush()
    return input()


def _remembered(line: str, remember: Callable[[str], None]) -> str:
    if line.strip():
        remember(line)
    return line


def _make_private(path: Path) -> None:
    """An empty file if there is none; its owner's alone, whatever it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
