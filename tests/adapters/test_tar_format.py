"""A tar of an adapter: the same bytes everywhere, back to the same files, and nothing else is read from one."""

import io
import os
import random
import subprocess
import tarfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import AdapterInvalid, AdapterTooLarge
from adapters.exporting import files_to_export, read_exported
from adapters.files import MAX_FILE_BYTES, AdapterFiles
from adapters.store import AdapterStore
from adapters.tar_format import (
    CHUNK_BYTES,
    MAX_PADDING_BYTES,
    read_tar,
    read_tar_file,
    tar_chunks,
    tar_size,
    write_tar_file,
)
from adapters.weights import read_adapter
from tests.adapters.making import adapter_files

FILES = replace(adapter_files(manifest=b'{"chat_format": null}'), card=b"# Kind\n")


def tar_of(files: AdapterFiles) -> bytes:
    return b"".join(tar_chunks(files))


def member(name: str, content: bytes = b"", **fields: Any) -> bytes:
    """One member, as Python's tarfile lays it out."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


END = bytes(2 * tarfile.BLOCKSIZE)
CONFIG, WEIGHTS = (member(name, content) for name, content in list(FILES.by_name().items())[:2])


def test_it_comes_back_as_it_was() -> None:
    assert read_tar(io.BytesIO(tar_of(FILES))) == FILES
    assert read_tar(io.BytesIO(CONFIG + WEIGHTS + END)).by_name() == dict(list(FILES.by_name().items())[:2])


def test_other_programs_read_it_and_it_tells_nothing_of_this_machine() -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_of(FILES))) as tar:
        members = tar.getmembers()
        assert [one.name for one in members] == list(FILES.by_name())
        assert {(one.mode, one.uid, one.gid, one.uname, one.gname, one.mtime) for one in members} == {
            (0o644, 0, 0, "", "", 0)
        }
        assert all(one.isreg() for one in members)


@pytest.mark.parametrize("form", ["ustar", "gnu", "v7"])
def test_it_reads_what_the_tar_program_writes(tmp_path: Path, form: str) -> None:
    for name, content in FILES.by_name().items():
        (tmp_path / name).write_bytes(content)
    command = ["tar", f"--format={form}", "-cf", "x.tar", *FILES.by_name()]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert read_tar_file(tmp_path / "x.tar") == FILES


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "ends too early"),
        (b"PK\3\4" + bytes(600), "this is no tar"),
        (END, "adapter_config.json: missing"),
        (CONFIG + END, "adapter_model.safetensors: missing"),
        (CONFIG + WEIGHTS, "ends too early"),
        (CONFIG + WEIGHTS + bytes(512), "ends too early"),
        (CONFIG + WEIGHTS + bytes(512) + CONFIG + END, "a block of zeros before its end"),
        (CONFIG + WEIGHTS + END + CONFIG, "something follows its end"),
        (CONFIG + WEIGHTS + END + bytes(MAX_PADDING_BYTES + 1), "something follows its end"),
        (CONFIG + WEIGHTS + CONFIG + END, "adapter_config.json: is there twice"),
        (CONFIG[:-1] + b"x" + WEIGHTS + END, "something is hidden behind it"),
        (member("adapter_model.bin") + END, "is no file of an adapter"),
        (member("/etc/passwd") + END, "is no file of an adapter"),
        (member("../adapter_config.json") + END, "is no file of an adapter"),
        (member("./adapter_config.json") + END, "is no file of an adapter"),
        (member("x/adapter_config.json") + END, "is no file of an adapter"),
        (member("adapter_config.json", type=tarfile.SYMTYPE, linkname="/etc/passwd") + END, "is a symbolic link"),
        (member("adapter_config.json", type=tarfile.LNKTYPE, linkname="README.md") + END, "is a hard link"),
        (member("adapter_config.json", linkname="/etc/passwd") + END, "adapter_config.json: is a link"),
        (member("adapter_config.json", type=tarfile.DIRTYPE) + END, "is a directory"),
        (member("adapter_config.json", type=tarfile.FIFOTYPE) + END, "is a FIFO"),
        (member("adapter_config.json", type=tarfile.CHRTYPE) + END, "is a device"),
        (member("adapter_config.json", type=tarfile.GNUTYPE_SPARSE) + END, "is a sparse file"),
        (member("adapter_config.json", type=tarfile.CONTTYPE) + END, "is of type b'7'"),
        (member("adapter_config.json", type=b"Z") + END, "is of type b'Z'"),
        (member("a" * 200) + END, "is a GNU extension"),
        (
            member("././@PaxHeader", b"27 path=adapter_config.json\n", type=tarfile.XHDTYPE) + CONFIG,
            "is a pax extension",
        ),
        (member("pax", b"19 GNU.sparse.x=1\n", type=tarfile.XGLTYPE) + CONFIG, "is a pax extension"),
    ],
)
def test_anything_else_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(AdapterInvalid) as caught:
        read_tar(io.BytesIO(content))
    assert problem in str(caught.value)


class HeaderOnly(io.BytesIO):
    """Fails where more than a header is read."""

    def read(self, size: int | None = -1) -> bytes:
        assert size == tarfile.BLOCKSIZE
        return super().read(size)


@pytest.mark.parametrize("size", [256 * 1024 + 1, 8**11 - 1, 2**63, 2**80, -1])
def test_a_size_over_the_limit_is_refused_before_it_is_read(size: int) -> None:
    info = tarfile.TarInfo("adapter_config.json")
    info.size = size
    with pytest.raises(AdapterTooLarge, match="over the limit of 262144 bytes"):
        read_tar(HeaderOnly(info.tobuf(tarfile.GNU_FORMAT)))


def test_it_is_refused_cut_off_anywhere_and_with_flipped_bits(tmp_path: Path) -> None:
    """Unless that changes nothing: a header has its checksum, and the content the digest that the export recorded."""
    store = AdapterStore(tmp_path / "store")
    manifest = store.publish("a", adapter_files(manifest=b"{}")).manifest
    whole = tar_of(files_to_export(store, "a"))
    path = tmp_path / "a.tar"
    for length in range(0, len(whole), 7):
        with pytest.raises(AdapterInvalid):
            read_tar(io.BytesIO(whole[:length]))
    chance = random.Random(0)
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with suppress(AdapterInvalid):
            name, files = read_exported(path, name="a")
            assert read_adapter(name, files).manifest == manifest


def test_a_version_is_exported_to_the_same_bytes_from_any_store(tmp_path: Path) -> None:
    stores = [AdapterStore(tmp_path / name) for name in ("one", "other")]
    stores[0].publish("first", FILES)
    for store in stores:
        digest = store.publish("team", FILES).manifest.digest
        store.publish("team", adapter_files(seed=2))
    first, second = (tar_of(files_to_export(store, f"team@{digest[:8]}")) for store in stores)
    assert first == second
    assert tar_of(files_to_export(stores[0], "team")) != first


def test_it_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_tar_file(path, FILES)
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"old", ["a.tar"])
    monkeypatch.undo()
    write_tar_file(path, FILES)
    assert (read_tar_file(path), os.listdir(tmp_path)) == (FILES, ["a.tar"])


def test_large_weights_go_in_pieces() -> None:
    files = AdapterFiles(FILES.config, random.Random(0).randbytes(2 * CHUNK_BYTES + 1))
    assert max(map(len, tar_chunks(files))) == CHUNK_BYTES
    assert len(tar_of(files)) == tar_size(files)
    assert read_tar(io.BytesIO(tar_of(files))) == files


def test_what_is_announced_and_not_there_is_not_allocated() -> None:
    """A header of eight GiB, which weights may have, and nothing behind it."""
    info = tarfile.TarInfo("adapter_model.safetensors")
    info.size = MAX_FILE_BYTES["adapter_model.safetensors"]
    with pytest.raises(AdapterInvalid, match="ends too early"):
        read_tar(HeaderOnly(info.tobuf(tarfile.GNU_FORMAT)))
