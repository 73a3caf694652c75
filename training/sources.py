"""Files, directories and hub data sets become items: a value and its place. Knows no form of rows."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import DataError

_HUB_ID = re.compile(r"(?:hf://)?(?P<id>[A-Za-z0-9][\w.-]*/[\w.-]+)(?::(?P<split>[\w.\[\]%-]+))?")
_FILE_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
_DEFAULT_SPLIT = "train"


@dataclass(frozen=True, slots=True)
class Item:
    """A row as it was read, and where it stands in its source: `line 3`, or `index 2` counted from 0."""

    place: str
    value: Any


def read_items(source: str, problems: list[str]) -> list[Item]:
    """Everything in a file, a `save_to_disk` directory, or a hub data set (`owner/name`, `owner/name:split`).

    What is wrong with one line goes to `problems`. Raises DataError when the source cannot be read at all.
    """
    path = Path(source)
    hub = _HUB_ID.fullmatch(source)
    if path.is_dir():
        return list(_saved_items(path))
    if hub is not None and not path.exists() and (source.startswith("hf://") or path.suffix not in _FILE_SUFFIXES):
        return list(_hub_items(source, hub["id"], hub["split"] or _DEFAULT_SPLIT))
    if path.suffix == ".parquet":
        return list(_parquet_items(path))
    text = _text_of(path)
    if path.suffix in (".csv", ".tsv"):
        return list(_csv_items(path, text, problems))
    is_array = path.suffix != ".jsonl" and text.lstrip().startswith("[")
    return list(_array_items(path, text) if is_array else _line_items(path, text, problems))


def source_name(source: str) -> str:
    """What others may know of a source: the name of a file, never where it lies; a hub id as it is."""
    path = Path(source)
    return path.resolve().name if path.exists() else source


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError([f"{path}: no such file or directory"]) from None
    except UnicodeDecodeError as error:
        raise DataError([f"{path}: not UTF-8 text (byte {error.start})"]) from None
    except OSError as error:
        raise DataError([f"{path}: cannot be read: {error.strerror}"]) from None


def _line_items(path: Path, text: str, problems: list[str]) -> Iterator[Item]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield Item(f"line {number}", json.loads(line))
        except json.JSONDecodeError as error:
            problems.append(f"{path}, line {number}: not valid JSON: {error.msg} at column {error.colno}")
        except RecursionError:
            problems.append(f"{path}, line {number}: nested too deeply")


def _array_items(path: Path, text: str) -> Iterator[Item]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError([f"{path}, line {error.lineno}: not valid JSON: {error.msg} at column {error.colno}"]) from None
    except RecursionError:
        raise DataError([f"{path}: nested too deeply"]) from None
    return (Item(f"index {index}", value) for index, value in enumerate(values))


def _csv_items(path: Path, text: str, problems: list[str]) -> Iterator[Item]:
    reader = csv.reader(text.splitlines(keepends=True), delimiter="\t" if path.suffix == ".tsv" else ",")
    header: list[str] | None = None
    start = 1
    try:
        for cells in reader:
            place, start = f"line {start}", reader.line_num + 1
            if header is None:
                header = cells
            elif len(cells) > len(header):
                problems.append(f"{path}, {place}: has {len(cells)} cells, the header {len(header)}")
            elif cells:
                yield Item(place, dict(zip(header, cells, strict=False)))
    except csv.Error as error:
        problems.append(f"{path}, line {reader.line_num}: not valid CSV: {error}")


def _parquet_items(path: Path) -> Iterator[Item]:
    import pyarrow  # type: ignore[import-untyped]  # heavy, and needed for this form only
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except FileNotFoundError:
        raise DataError([f"{path}: no such file or directory"]) from None
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError([f"{path}: cannot be read as Parquet: {_first_line(error)}"]) from None
    return (Item(f"index {index}", _without_fillers(value)) for index, value in enumerate(rows))


def _saved_items(path: Path) -> Iterator[Item]:
    import datasets  # type: ignore[import-untyped]  # heavy, and needed for this form only

    try:
        dataset = datasets.load_from_disk(str(path))
    except FileNotFoundError:
        raise DataError([f"{path}: a directory, but not one that datasets' save_to_disk wrote"]) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError([f"{path}: cannot be read as a dataset: {error}"]) from None
    if isinstance(dataset, datasets.DatasetDict):
        if _DEFAULT_SPLIT not in dataset:
            splits = ", ".join(sorted(map(str, dataset)))
            raise DataError([f"{path}: has no split '{_DEFAULT_SPLIT}' (splits: {splits})"])
        dataset = dataset[_DEFAULT_SPLIT]
    return (Item(f"index {index}", _without_fillers(value)) for index, value in enumerate(dataset))


def _hub_items(source: str, hub_id: str, split: str) -> Iterator[Item]:
    import datasets

    try:
        dataset = datasets.load_dataset(hub_id, split=split)
    except Exception as error:  # a hub client raises what its layers raise
        reason = _first_line(error)
        raise DataError([f"{source}: no such file, and no data set of the hub that can be read: {reason}"]) from None
    return (Item(f"index {index}", _without_fillers(value)) for index, value in enumerate(dataset))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _without_fillers(value: Any) -> Any:
    """Arrow gives every object of a column the fields of all of them; what one lacked is None. Columns are kept."""
    if isinstance(value, Mapping):
        return {key: _without_nones(content) for key, content in value.items()}
    return value


def _without_nones(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nones(content) for key, content in value.items() if content is not None}
    if isinstance(value, list):
        return [_without_nones(content) for content in value]
    return value
