"""Alpaca rows from JSON, JSONL or a `save_to_disk` directory; every bad one is reported. Knows no tokens, no model."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import DataError

_REQUIRED_FIELDS = ("instruction", "output")


@dataclass(frozen=True, slots=True)
class Row:
    """One instruction with its answer; `input` is what the instruction is about, and may be empty."""

    instruction: str
    input: str
    output: str

    @property
    def question(self) -> str:
        """What the user says."""
        return f"{self.instruction}\n{self.input}" if self.input else self.instruction


@dataclass(frozen=True, slots=True)
class _Item:
    """A row as it was read, and where it stands in its file."""

    place: str
    value: Any


def read_rows(path: Path) -> list[Row]:
    """All rows of a file or directory. Raises DataError with every problem at once."""
    problems: list[str] = []
    items = list(_read_items(path, problems))
    if not items and not problems:
        raise DataError([f"{path}: has no rows"])
    _check_columns(path, items)
    rows = []
    for item in items:
        found = list(_row_problems(item.value))
        problems.extend(f"{path}, {item.place}{problem}" for problem in found)
        if not found:
            rows.append(_row(item.value))
    if problems:
        raise DataError(problems)
    return rows


def rows_digest(rows: Iterable[Row]) -> str:
    """sha256 over the rows, each as one line of JSON: equal for equal rows in whatever form they were stored."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.instruction, row.input, row.output], ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def _read_items(path: Path, problems: list[str]) -> Iterator[_Item]:
    if path.is_dir():
        return _dataset_items(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError([f"{path}: no such file or directory"]) from None
    except UnicodeDecodeError as error:
        raise DataError([f"{path}: not UTF-8 text (byte {error.start})"]) from None
    except OSError as error:
        raise DataError([f"{path}: cannot be read: {error.strerror}"]) from None
    is_array = path.suffix != ".jsonl" and text.lstrip().startswith("[")
    return _array_items(path, text) if is_array else _line_items(path, text, problems)


def _line_items(path: Path, text: str, problems: list[str]) -> Iterator[_Item]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield _Item(f"line {number}", json.loads(line))
        except json.JSONDecodeError as error:
            problems.append(f"{path}, line {number}: not valid JSON: {error.msg} at column {error.colno}")
        except RecursionError:
            problems.append(f"{path}, line {number}: nested too deeply")


def _array_items(path: Path, text: str) -> Iterator[_Item]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError([f"{path}, line {error.lineno}: not valid JSON: {error.msg} at column {error.colno}"]) from None
    except RecursionError:
        raise DataError([f"{path}: nested too deeply"]) from None
    return (_Item(f"index {index}", value) for index, value in enumerate(values))


def _dataset_items(path: Path) -> Iterator[_Item]:
    import datasets  # type: ignore[import-untyped]  # heavy, and needed for this form only

    try:
        dataset = datasets.load_from_disk(str(path))
    except FileNotFoundError:
        raise DataError([f"{path}: a directory, but not one that datasets' save_to_disk wrote"]) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError([f"{path}: cannot be read as a dataset: {error}"]) from None
    if isinstance(dataset, datasets.DatasetDict):
        if "train" not in dataset:
            raise DataError([f"{path}: has no split 'train' (splits: {', '.join(sorted(map(str, dataset)))})"])
        dataset = dataset["train"]
    return (_Item(f"index {index}", value) for index, value in enumerate(dataset))


def _check_columns(path: Path, items: list[_Item]) -> None:
    """Say it once when a field is in no row at all, and once when no row is an object."""
    objects = [item.value for item in items if isinstance(item.value, dict)]
    if not objects:
        return
    names = dict.fromkeys(str(name) for value in objects for name in value)
    missing = [field for field in _REQUIRED_FIELDS if field not in names]
    if missing:
        listed = " and ".join(f"'{field}'" for field in missing)
        raise DataError([f"{path}: no column {listed} (columns: {', '.join(list(names)[:20])})"])


def _row_problems(value: Any) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f": must be an object with instruction, input and output, is {_type_name(value)}"
        return
    for field in _REQUIRED_FIELDS:
        if field not in value:
            yield f", field '{field}': missing"
    for field in ("instruction", "input", "output"):
        content = value.get(field, "")
        if field == "input" and content is None:
            continue
        if not isinstance(content, str):
            yield f", field '{field}': must be a string, is {_type_name(content)}"
        elif not _is_unicode(content):
            yield f", field '{field}': holds half of a surrogate pair"
    if value.get("instruction") == "" and not value.get("input"):
        yield ", field 'instruction': empty, and 'input' too"


def _row(value: dict[str, Any]) -> Row:
    return Row(value["instruction"], value.get("input") or "", value["output"])


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _type_name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
