"""Prepared rows: read as they were written, prepared again where they are damaged, and never more than the limit."""

import io
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.tiny import Family
from tests.training.rows import ENGLISH, tiny_config, write_jsonl
from training.config import TrainConfig
from training.data_cache import DataCache
from training.examples import EncodedRows, Example
from training.prepare import PreparedRun, prepare_run

ROWS = EncodedRows([Example([1, 2], [3], "c", {1: 5}), Example([1], [], "")], 1, 1, 0)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTPROMPT_HOME", str(tmp_path / "home"))


def _prepared(config: TrainConfig) -> tuple[PreparedRun, str]:
    output = io.StringIO()
    return prepare_run(config, Console(file=output)), output.getvalue()


def _files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "home" / "prepared").glob("*"))


def test_the_second_run_reads_what_the_first_prepared(
    tmp_path: Path, bases: dict[Family, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    held_out = write_jsonl(tmp_path / "held.jsonl", ENGLISH[:4])
    config = tiny_config(bases["llama"], tmp_path, eval_data=held_out, data_cache=True)
    first, told = _prepared(config)
    assert "prepared before" not in told
    assert len(_files(tmp_path)) == 2
    with monkeypatch.context() as patch:
        patch.setattr("training.prepare.encode_rows", None)
        second, told = _prepared(config)
    assert "prepared before" in told
    assert (second.train, second.held_out) == (first.train, first.held_out)
    changes: list[dict[str, Any]] = [{"max_length": 60}, {"system_prompt": "Be brief."}, {"rows": ENGLISH[:9]}]
    for change in changes:
        _, told = _prepared(tiny_config(bases["llama"], tmp_path, data_cache=True, **change))
        assert "prepared before" not in told, change
    _, told = _prepared(tiny_config(bases["gpt2"], tmp_path, data_cache=False))
    assert "prepared before" not in told


def test_what_is_damaged_is_prepared_again(tmp_path: Path, bases: dict[Family, Path]) -> None:
    config = tiny_config(bases["llama"], tmp_path, data_cache=True)
    first, _ = _prepared(config)
    (file,) = _files(tmp_path)
    whole = file.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1], whole.replace(b"[", b"(", 1), whole[:70] + b"9" + whole[71:]):
        file.write_bytes(damaged)
        again, told = _prepared(config)
        assert "prepared before" not in told
        assert again.train == first.train
        assert file.read_bytes() == whole


def test_the_oldest_go_where_there_is_no_room(tmp_path: Path) -> None:
    DataCache(tmp_path).write("a", ROWS)
    size = (tmp_path / "a.rows").stat().st_size
    cache = DataCache(tmp_path, max_bytes=2 * size)
    cache.write("b", ROWS)
    os.utime(tmp_path / "a.rows", (1, 1))
    os.utime(tmp_path / "b.rows", (2, 2))
    assert cache.read("a") == ROWS
    cache.write("c", ROWS)
    assert (cache.read("a"), cache.read("b"), cache.read("c")) == (ROWS, None, ROWS)
    assert cache.clear() == 2 * size
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_there_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = DataCache(tmp_path / "file")
    cache.write("a", ROWS)
    assert cache.read("a") is None
    assert cache.clear() == 0
