"""Directories below allow-listed roots are read, and nothing else, whatever a path says and wherever links lead."""

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from adapters.errors import AdapterInvalid
from adapters.files import AdapterFiles
from server.sources.errors import SourceRefused, SourceUnavailable
from server.sources.roots import AdapterRoots
from tests.adapters.making import adapter_files


def write_files(directory: Path, files: AdapterFiles) -> Path:
    directory.mkdir(parents=True)
    for name, content in files.by_name().items():
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_files(tmp_path / "outside" / "secret", adapter_files(seed=9))
    return write_files(tmp_path / "root" / "team" / "first", adapter_files(seed=1)).parent.parent


def test_a_directory_below_a_root_is_read(root: Path) -> None:
    roots = AdapterRoots((root.parent / "other", root))
    for path in (root / "team/first", f"{root}//team/./first/"):
        assert roots.read(str(path)) == adapter_files(seed=1)


def test_a_root_may_be_reached_by_a_link_and_be_an_adapter_itself(root: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(root)
    assert AdapterRoots((tmp_path / "linked",)).read(str(tmp_path / "linked/team/first")) == adapter_files(seed=1)
    assert AdapterRoots((root / "team/first",)).read(str(root / "team/first")) == adapter_files(seed=1)


def test_what_is_not_below_a_root_is_refused_unread(root: Path) -> None:
    roots = AdapterRoots((root,))
    outside = root.parent / "outside/secret"
    for path in (
        str(outside),
        f"{root}/../outside/secret",
        f"{root}/team/../../outside/secret",
        f"{root}x/team/first",
        "outside/secret",
        "",
        "/",
        "~/secret",
        f"{root}/team\0/first",
        f"{root}/\ud800",
        f"{root}/" + "a" * 5000,
        f"{root}/" + "a/" * 100,
        f"file://{outside}",
    ):
        with pytest.raises(SourceRefused):
            roots.read(path)
    with pytest.raises(SourceRefused, match="--adapter-roots"):
        AdapterRoots(()).read(str(root / "team/first"))


def test_no_link_leads_out(root: Path) -> None:
    roots = AdapterRoots((root,))
    outside = root.parent / "outside"
    (root / "link").symlink_to(outside)
    (root / "team/secret").symlink_to(outside / "secret")
    files = write_files(root / "files", adapter_files(seed=2))
    (files / "adapter_config.json").unlink()
    (files / "adapter_config.json").symlink_to(outside / "secret/adapter_config.json")
    for path in ("link/secret", "team/secret", "team/%2e%2e", "missing", "team/first/adapter_config.json", "a" * 300):
        with pytest.raises(SourceUnavailable):
            roots.read(str(root / path))
    with pytest.raises(AdapterInvalid, match="symbolic link"):
        roots.read(str(files))


def test_a_directory_that_becomes_a_link_while_it_is_read_is_not_left(root: Path) -> None:
    write_files(root.parent / "outside/first", adapter_files(seed=9))
    roots = AdapterRoots((root,))
    inside, kept = root / "team", root / "kept"
    is_over = threading.Event()

    def swap() -> None:
        while not is_over.is_set():
            inside.rename(kept)
            inside.symlink_to(root.parent / "outside")
            inside.unlink()
            kept.rename(inside)

    open_files = len(os.listdir("/proc/self/fd"))
    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(1000):
            with suppress(SourceUnavailable):
                assert roots.read(str(root / "team/first")) == adapter_files(seed=1)
    finally:
        is_over.set()
        swapping.join()
    assert len(os.listdir("/proc/self/fd")) == open_files
