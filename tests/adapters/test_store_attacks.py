"""Bytes that flip on the disk are all found at load, and no name or path, however hostile, leads out of a store."""

import os
import subprocess
import tempfile
from pathlib import Path
from unittest import mock

import pytest

from adapters.check_sums import SUMS_FILE
from adapters.errors import AdapterDamaged
from adapters.store import AdapterStore
from tests.adapters import store_attacks
from tests.adapters.flipping import flip_bits, whole_files
from tests.adapters.hostile_names import OpenedPaths, ask_for_hostile_names


@pytest.mark.parametrize("flips", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_every_flipped_bit_is_found_at_load(tmp_path: Path, flips: int) -> None:
    assert flip_bits(tmp_path / "store", flips) == flips


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


@pytest.fixture(scope="module")
def opened_paths() -> OpenedPaths:
    return OpenedPaths()


@pytest.mark.parametrize("names", [3_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_no_hostile_name_opens_anything_outside_the_store(opened_paths: OpenedPaths, names: int) -> None:
    with tempfile.TemporaryDirectory() as directory, mock.patch("os.fsync"):
        assert ask_for_hostile_names(Path(directory), names, opened_paths) == []
        assert sorted(os.listdir(directory)) == ["secret.json", "store"]


def test_the_attacks_are_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert store_attacks.main(["--flips", "20", "--steps", "200"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("20 bits flipped, 20 found at load (")
    assert "steps of the stateful test; the model and the store agree" in said[1]
