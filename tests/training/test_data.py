"""Alpaca rows in their three forms, and that bad ones are reported by file, line and field."""

import json
from pathlib import Path

import datasets  # type: ignore[import-untyped]
import pytest

from tests.training.rows import ENGLISH, write_jsonl
from training.conversation import alpaca, rows_digest
from training.data import read_rows
from training.errors import DataError

GOOD = {"instruction": "i", "input": "x", "output": "o"}


def test_every_form_gives_the_same_rows(tmp_path: Path) -> None:
    array = tmp_path / "rows.json"
    array.write_text(json.dumps(ENGLISH, indent=1))
    lines = write_jsonl(tmp_path / "rows.jsonl", ENGLISH)
    lines_called_json = write_jsonl(tmp_path / "lines.json", ENGLISH)
    dataset = datasets.Dataset.from_list(ENGLISH)
    dataset.save_to_disk(str(tmp_path / "plain"))
    datasets.DatasetDict({"train": dataset, "test": dataset.select([0])}).save_to_disk(str(tmp_path / "splits"))
    forms = [array, lines, lines_called_json, tmp_path / "plain", tmp_path / "splits"]
    rows = [read_rows(form) for form in forms]
    assert all(form == rows[0] for form in rows)
    assert rows[0][1] == alpaca("Add 0 and 1.", "", "1")
    assert len({rows_digest(form) for form in rows}) == 1


def test_input_may_be_missing_or_null(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [{"instruction": "i", "output": "o"}, GOOD | {"input": None}])
    assert read_rows(file) == [alpaca("i", "", "o")] * 2


def test_a_byte_order_mark_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\ufeff" + json.dumps(GOOD) + "\n\n" + json.dumps(GOOD) + "\r\n", encoding="utf-8")
    assert len(read_rows(file)) == 2


def test_the_digest_depends_on_content_and_order() -> None:
    one, two = alpaca("a", "b", "c"), alpaca("ab", "", "c")
    assert len({rows_digest(rows) for rows in ([one], [two], [one, two], [two, one])}) == 4


def test_every_bad_row_is_reported_by_line_and_field(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    bad = [
        json.dumps(GOOD),
        json.dumps({"instruction": "i", "input": ""}),
        "{broken",
        json.dumps(GOOD | {"output": 3}),
        json.dumps(["no", "object"]),
        json.dumps(GOOD | {"instruction": "", "input": ""}),
        json.dumps(GOOD | {"input": False, "output": None}),
        '{"instruction": "\\ud800", "output": "o"}',
    ]
    file.write_text("\n".join(bad))
    with pytest.raises(DataError) as caught:
        read_rows(file)
    assert [problem.removeprefix(f"{file}, ") for problem in caught.value.problems] == [
        "line 3: not valid JSON: Expecting property name enclosed in double quotes at column 2",
        "line 2, field 'output': missing",
        "line 4, field 'output': must be a string, is a number",
        "line 5: must be an object with instruction, input and output, is a list",
        "line 6, field 'instruction': empty, and 'input' too",
        "line 7, field 'input': must be a string, is true or false",
        "line 7, field 'output': must be a string, is null",
        "line 8, field 'instruction': holds half of a surrogate pair",
    ]


def test_many_bad_rows_are_counted_and_ten_are_shown(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [GOOD] + [GOOD | {"output": n} for n in range(25)])
    with pytest.raises(DataError) as caught:
        read_rows(file)
    message = str(caught.value)
    assert message.startswith("25 problems in the data:")
    assert "line 11," in message
    assert "line 12," not in message
    assert message.endswith("... and 15 more")


def test_rows_of_an_array_and_of_a_dataset_are_named_by_index(tmp_path: Path) -> None:
    array = tmp_path / "rows.json"
    array.write_text(json.dumps([GOOD, {"instruction": "i"}]))
    with pytest.raises(DataError, match="index 1, field 'output': missing"):
        read_rows(array)
    datasets.Dataset.from_list([GOOD, GOOD | {"output": None}]).save_to_disk(str(tmp_path / "dataset"))
    with pytest.raises(DataError, match="index 1, field 'output': must be a string, is null"):
        read_rows(tmp_path / "dataset")


def _write(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def test_a_column_that_no_row_has_is_one_line(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "output": "o"}] * 50
    dataset = tmp_path / "dataset"
    datasets.Dataset.from_list(rows).save_to_disk(str(dataset))
    for path in (write_jsonl(tmp_path / "rows.jsonl", rows), dataset):
        with pytest.raises(DataError, match=r"^\S+: rows of no known form \(columns: prompt, output; known forms:"):
            read_rows(path)
        with pytest.raises(DataError, match=r"^\S+: no column 'instruction' \(columns: prompt, output\)$"):
            read_rows(path, "alpaca")


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    datasets.DatasetDict({"test": datasets.Dataset.from_list([GOOD])}).save_to_disk(str(tmp_path / "no_train"))
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    expected = {
        tmp_path / "none.jsonl": "no such file or directory",
        _write(tmp_path / "empty.jsonl", ""): "has no rows",
        _write(tmp_path / "blank.json", " \n\n"): "has no rows",
        _write(tmp_path / "array.json", "[]"): "has no rows",
        _write(tmp_path / "broken.json", '[\n{"instruction": "i",]'): "line 2: not valid JSON",
        tmp_path / "folder": "a directory, but not one that datasets' save_to_disk wrote",
        tmp_path / "no_train": "has no split 'train'",
        tmp_path / "binary.jsonl": "not UTF-8 text",
    }
    for path, problem in expected.items():
        with pytest.raises(DataError) as caught:
            read_rows(path)
        assert str(caught.value).startswith(str(path))
        assert problem in str(caught.value)
        assert "\n" not in str(caught.value)
