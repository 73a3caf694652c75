"""Reading an adapter's directory, the limits, and what the digest depends on."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.errors import AdapterInvalid, AdapterTooLarge
from adapters.files import (
    CARD_FILE,
    CONFIG_FILE,
    MAX_FILE_BYTES,
    MAX_WEIGHTS_BYTES,
    AdapterFiles,
    content_digest,
    read_adapter_directory,
)
from adapters.manifest import MANIFEST_FILE, ManifestDraft, parse_manifest_draft
from adapters.tensor_file import WEIGHTS_FILE
from tests.adapters.making import adapter_files

FILES = adapter_files()


def write(directory: Path, files: AdapterFiles) -> Path:
    for name, content in files.by_name().items():
        (directory / name).write_bytes(content)
    return directory


def test_reads_the_four_files_and_no_other(tmp_path: Path) -> None:
    files = AdapterFiles(FILES.config, FILES.weights, b"{}", b"# card")
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    assert read_adapter_directory(write(tmp_path, files)) == files


@pytest.mark.parametrize("missing", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_missing_file_is_named_without_its_path(tmp_path: Path, missing: str) -> None:
    write(tmp_path, FILES)
    (tmp_path / missing).unlink()
    with pytest.raises(AdapterInvalid, match=f"^{missing}: missing") as caught:
        read_adapter_directory(tmp_path)
    assert str(tmp_path) not in str(caught.value)


def test_not_a_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", write(tmp_path, FILES) / CONFIG_FILE):
        with pytest.raises(AdapterInvalid, match=r"^path: not a directory$"):
            read_adapter_directory(path)


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE, CARD_FILE])
def test_links_pipes_and_directories_are_not_read(tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (tmp_path / "adapter").mkdir()
    path = write(tmp_path / "adapter", FILES) / name
    makers: dict[str, Callable[[], None]] = {
        "symbolic link": lambda: path.symlink_to(secret),
        "directory": path.mkdir,
        "not a regular file": lambda: os.mkfifo(path),
    }
    for problem, make in makers.items():
        path.unlink(missing_ok=True)
        make()
        with pytest.raises(AdapterInvalid, match=f"^{name}: .*{problem}") as caught:
            read_adapter_directory(tmp_path / "adapter")
        assert str(tmp_path) not in str(caught.value)
        if path.is_dir():
            path.rmdir()


def test_a_file_over_its_limit_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    with open(tmp_path / WEIGHTS_FILE, "wb") as file:
        file.truncate(MAX_WEIGHTS_BYTES + 1)  # sparse: no disk is used
    with pytest.raises(AdapterTooLarge, match=f"^{WEIGHTS_FILE}: over the limit"):
        read_adapter_directory(tmp_path)


def test_bytes_over_a_limit_are_refused() -> None:
    with pytest.raises(AdapterTooLarge, match=f"^{CONFIG_FILE}: "):
        AdapterFiles(b" " * (MAX_FILE_BYTES[CONFIG_FILE] + 1), FILES.weights)


def digest(config: bytes = FILES.config, weights: bytes = FILES.weights, manifest: bytes = b"{}") -> str:
    return content_digest(config, weights, parse_manifest_draft(manifest))


def test_the_digest_is_stable_over_versions() -> None:
    """A change of this value is a change of the format on disk: every published adapter would be found damaged."""
    draft = ManifestDraft.model_validate({"chat_format": {"template": "x", "stop": ["。"]}})
    assert content_digest(b"config", b"weights", draft)[:16] == "8c016dbe86ce929e"


def test_the_digest_changes_with_every_canonical_byte() -> None:
    digests = {digest()}
    for content, as_field in ((FILES.config, "config"), (FILES.weights, "weights")):
        for position in range(len(content)):
            changed = bytearray(content)
            changed[position] ^= 1
            digests.add(digest(**{as_field: bytes(changed)}))
    assert len(digests) == 1 + len(FILES.config) + len(FILES.weights)


def test_the_digest_is_of_the_makers_facts_and_not_of_the_name() -> None:
    assert digest(manifest=b'{"name": "a", "digest": "x"}') == digest()
    assert digest(manifest=b'{ "chat_format" : {"template":"x"} }') == digest(
        manifest=b'{"chat_format":{"template":"x"}}'
    )
    assert digest(manifest=b'{"chat_format": {"template": "x"}}') != digest(
        manifest=b'{"chat_format":{"template":"y"}}'
    )


def test_bytes_moved_from_one_file_to_the_other_change_the_digest() -> None:
    assert digest(b"ab", b"c") != digest(b"a", b"bc")
