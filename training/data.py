"""All rows of a run: read, checked, weighted and split, with counts of what is odd. Knows no tokens, no model."""

import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.conversation import Conversation
from training.errors import DataError
from training.messages import FieldProblem
from training.row_forms import DataFormat, FormName, convert, detect_form, known_forms, missing_columns
from training.sources import Item, read_items


@dataclass(frozen=True, slots=True)
class SourceRows:
    """The rows of one source, and the form they were in."""

    source: str
    form: FormName
    rows: tuple[Conversation, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """Rows to train on and rows held out; no question is on both sides."""

    train: tuple[Conversation, ...]
    held_out: tuple[Conversation, ...]


def read_source(source: str | Path, data_format: DataFormat = "auto") -> SourceRows:
    """All rows of a file, a directory or a hub data set. Raises DataError with every problem at once."""
    problems: list[str] = []
    items = read_items(str(source), problems)
    if not items and not problems:
        raise DataError([f"{source}: has no rows"])
    form = _form_of(str(source), items, data_format)
    rows = []
    for item in items:
        found: list[FieldProblem] = []
        row = convert(form, item.value, place=f"{source}, {item.place}", problems=found)
        problems.extend(f"{source}, {item.place}{problem}" for problem in found)
        if row is not None:
            rows.append(row)
    if problems:
        raise DataError(problems)
    return SourceRows(str(source), form, tuple(rows))


def read_rows(source: str | Path, data_format: DataFormat = "auto") -> list[Conversation]:
    """The rows of one source. Raises DataError with every problem at once."""
    return list(read_source(source, data_format).rows)


def count_duplicates(rows: Sequence[Conversation]) -> int:
    """How many rows are equal to one before them."""
    return len(rows) - len({row.canonical for row in rows})


def without_duplicates(rows: Sequence[Conversation]) -> list[Conversation]:
    """Each different row once, in the order of their first appearance."""
    first: dict[str, Conversation] = {}
    for row in rows:
        first.setdefault(row.canonical, row)
    return list(first.values())


def split_by_content(rows: Sequence[Conversation], *, fraction: float, seed: int) -> Split:
    """Hold out about `fraction` of the rows, chosen by a hash of each question and the seed.

    Equal questions go to one side together, whatever their answers; each keeps its place in the order. Raises
    DataError when there are not two different questions.
    """
    sizes = Counter(row.question for row in rows)
    if len(sizes) < 2:
        raise DataError(["eval_fraction: all rows ask the same, so none can be held out"])
    wanted = max(1, round(fraction * len(rows)))
    chosen: set[str] = set()
    count = 0
    for question in sorted(sizes, key=lambda text: hashlib.sha256(f"{seed}\n{text}".encode()).digest())[:-1]:
        if count >= wanted:
            break
        chosen.add(question)
        count += sizes[question]
    return Split(
        tuple(row for row in rows if row.question not in chosen),
        tuple(row for row in rows if row.question in chosen),
    )


def weighted(rows: Sequence[Conversation], *, weight: float, seed: int) -> list[Conversation]:
    """Every row `weight` times: as often as its whole part says, and a random share of them once more."""
    whole, share = divmod(weight, 1)
    chosen = set(random.Random(seed).sample(range(len(rows)), round(share * len(rows))))
    return [*rows] * int(whole) + [row for index, row in enumerate(rows) if index in chosen]


def _form_of(source: str, items: Sequence[Item], data_format: DataFormat) -> FormName:
    """The form that is asked for, or that the columns show; says it once when a field is in no row at all."""
    objects = [item.value for item in items if isinstance(item.value, Mapping)]
    names = dict.fromkeys(str(name) for value in objects for name in value)
    listed = ", ".join(list(names)[:20])
    form = detect_form(names) if data_format == "auto" else data_format
    if not objects:
        return form or "alpaca"
    if form is None:
        raise DataError([f"{source}: rows of no known form (columns: {listed}; known forms: {known_forms()})"])
    if missing := missing_columns(form, names):
        columns = " and ".join(f"'{field}'" for field in missing)
        raise DataError([f"{source}: no column {columns} (columns: {listed})"])
    return form
