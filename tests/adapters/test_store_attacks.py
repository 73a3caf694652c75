"""Bytes that flip on the disk are all found at load, and no name or path, however hostile, leads out of a store."""

import os
import random
import string
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from adapters.check_sums import SUMS_FILE
from adapters.errors import AdapterDamaged, AdapterError
from adapters.files import AdapterFiles
from adapters.store import AdapterStore
from tests.adapters.making import adapter_files

ESCAPES = (
    *("..", "../", "..\\", "/", "//", "\\", "\0", "%2e%2e", "%2f", "%00", "．．", "／", "‥", "\u202e", "\ud800", "~"),
    *(".json", "@", "@abcdef", ":", "CON", "\n", "etc/passwd", "tmp", "names", "quarantine", "lock", "link", "a", " "),
)


@pytest.mark.parametrize("flips", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_every_flipped_bit_is_found_at_load(tmp_path: Path, flips: int) -> None:
    """One bit at a time of all that lies in twenty versions."""
    chance = random.Random(flips)
    store = AdapterStore(tmp_path / "store")
    digests = [store.publish(f"a{seed}", whole_files(seed)).manifest.digest for seed in range(20)]
    paths = [path for digest in digests for path in sorted(store.path_of(digest).iterdir())]
    assert len(paths) == 20 * 5
    for path in chance.choices(paths, weights=[path.stat().st_size for path in paths], k=flips):
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(AdapterDamaged):
            store.read("a", path.parent.name)
        path.write_bytes(whole)
    for digest in digests:
        store.read("a", digest)


def test_every_truncated_file_of_a_version_is_found_at_load(tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    digest = store.publish("a", whole_files(1)).manifest.digest
    for path in store.path_of(digest).iterdir():
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(AdapterDamaged):
                store.read("a", digest)
        path.write_bytes(whole)


def test_a_version_of_an_older_store_has_no_check_sums(tmp_path: Path) -> None:
    """A flipped bit of the maker's facts is found by the digest, then, or changes nothing."""
    store = AdapterStore(tmp_path / "store")
    adapter = store.publish("a", whole_files(1))
    path = store.path_of(adapter.manifest.digest) / "hotprompt.json"
    (path.parent / SUMS_FILE).unlink()
    whole = path.read_bytes()
    found = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        try:
            assert store.read("a", adapter.manifest.digest).manifest == adapter.manifest
        except AdapterDamaged:
            found += 1
    assert found > len(whole) / 3


def test_the_check_sums_are_those_of_the_program(tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    digest = store.publish("a", whole_files(1)).manifest.digest
    command = ["sha256sum", "--check", "--strict", SUMS_FILE]
    said = subprocess.run(command, cwd=store.path_of(digest), check=True, capture_output=True, text=True).stdout
    assert said == "hotprompt.json: OK\nREADME.md: OK\n"


def whole_files(seed: int) -> AdapterFiles:
    """An adapter with all the files that one may have."""
    manifest = b'{"chat_format": {"template": "{{ messages }}", "system_prompt": "Be kind."}}'
    return replace(adapter_files(seed=seed, manifest=manifest), card=b"# An adapter\n")


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


@pytest.fixture(scope="module")
def opened_paths() -> OpenedPaths:
    return OpenedPaths()


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


@pytest.mark.parametrize("names", [3_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_no_hostile_name_opens_anything_outside_the_store(opened_paths: OpenedPaths, names: int) -> None:
    chance = random.Random(names)
    files = adapter_files()
    with tempfile.TemporaryDirectory() as directory, mock.patch("os.fsync"):
        (Path(directory) / "secret.json").write_text("{}")
        root = Path(directory) / "store"
        store = AdapterStore(root)
        store.publish("a", files)
        (root / "names/link.json").symlink_to(Path(directory) / "names.json")
        opened_paths.outside.clear()
        with opened_paths.watch(root):
            for number in range(names):
                name = hostile_name(chance)
                for ask in (store.lookup, store.rollback, store.record):
                    with suppress(AdapterError):
                        ask(name)
                with suppress(AdapterError):
                    store.alias(name, "a")
                    store.remove(name)
                with suppress(AdapterError):
                    store.alias("to", f"a@{name}")
                if number % 10 == 0 and name != "a":
                    with suppress(AdapterError):
                        store.publish(name, files)
                        store.remove(name)
        assert opened_paths.outside == []
        assert sorted(os.listdir(directory)) == ["secret.json", "store"]
