"""Asks a store for names that break paths, and tells what was opened outside it. Run it where no other thread runs."""

import os
import random
import string
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adapters.errors import AdapterError
from adapters.store import AdapterStore
from tests.adapters.making import adapter_files

ESCAPES = (
    *("..", "../", "..\\", "/", "//", "\\", "\0", "%2e%2e", "%2f", "%00", "．．", "／", "‥", "\u202e", "\ud800", "~"),
    *(".json", "@", "@abcdef", ":", "CON", "\n", "etc/passwd", "tmp", "names", "quarantine", "lock", "link", "a", " "),
)


class OpenedPaths:
    """Paths that this process opens, makes, moves or deletes, while it is watched; an audit hook cannot be removed."""

    EVENTS = frozenset(
        {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir", "os.link", "os.symlink"}
    )

    def __init__(self) -> None:
        self._root: str | None = None
        self.outside: list[str] = []
        sys.addaudithook(self._hook)

    @contextmanager
    def watch(self, root: Path) -> Iterator[None]:
        self._root = os.path.realpath(root)
        try:
            yield
        finally:
            self._root = None

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._root is None or event not in self.EVENTS:
            return
        for path in arguments[:2]:
            if isinstance(path, str | bytes | os.PathLike) and os.path.isabs(path):
                real = os.path.realpath(os.fsdecode(path))
                if real != self._root and not real.startswith(self._root + os.sep):
                    self.outside.append(real)


def hostile_name(chance: random.Random) -> str:
    """Pieces that break paths, letters of any script, and now and then 4,096 characters."""
    kind = chance.randrange(10)
    if kind == 0:
        return chance.choice(ESCAPES + tuple(string.ascii_letters)) * chance.choice((1, 63, 64, 4096))
    if kind == 1:
        return "".join(chr(chance.randrange(0x110000)) for _ in range(chance.randrange(1, 40)))
    if kind == 2:
        return "../" * chance.randrange(1, 10) + chance.choice(("etc/passwd", "secret", "names/a", "outside/secret"))
    if kind == 3:
        return "".join(chance.choice(string.ascii_letters + "._-") for _ in range(chance.randrange(1, 66)))
    return "".join(chance.choice(ESCAPES) for _ in range(chance.randrange(1, 8)))


def ask_for_hostile_names(directory: Path, names: int, opened_paths: OpenedPaths) -> list[str]:
    """Ask a new store in `directory` for so many names, in every way; returns the paths outside it that were opened.

    Beside the store lies a file, and in it a link to another, which none of the names may reach.
    """
    chance = random.Random(names)
    (directory / "secret.json").write_text("{}")
    store = AdapterStore(directory / "store")
    files = adapter_files()
    store.publish("a", files)
    (directory / "store/names/link.json").symlink_to(directory / "names.json")
    opened_paths.outside.clear()
    with opened_paths.watch(directory / "store"):
        for number in range(names):
            name = hostile_name(chance)
            _ask(store, name)
            if number % 10 == 0 and name != "a":
                with suppress(AdapterError):
                    store.publish(name, files)
                    store.remove(name)
    return opened_paths.outside


def _ask(store: AdapterStore, name: str) -> None:
    for ask in (store.lookup, store.rollback, store.record):
        with suppress(AdapterError):
            ask(name)
    with suppress(AdapterError):
        store.alias(name, "a")
        store.remove(name)
    with suppress(AdapterError):
        store.alias("to", f"a@{name}")
