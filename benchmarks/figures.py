"""Figures: what is computed of records and held against a target. Knows no scenario and measures nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.percentiles import median
from benchmarks.records import Record

Verdict = Literal["met", "missed", "no target", "not measured", "void"]


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a value stands: a server's label, an arm, a number of clients, a metric."""

    server: str
    arm: str
    clients: int
    metric: str


@dataclass(frozen=True, slots=True)
class Target:
    """A limit that a figure has to keep."""

    side: Literal["≥", "≤"]
    limit: float

    def is_met_by(self, value: float) -> bool:
        return value >= self.limit if self.side == "≥" else value <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A value, its ratio to another, or its difference from another: of each round, then the median of the rounds."""

    name: str
    of: Cell
    against: Cell | None = None
    by: Literal["value", "ratio", "difference"] = "value"
    unit: str = ""
    target: Target | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A figure with its value in each round, and the medians of what it was computed from."""

    figure: Figure
    per_round: tuple[float, ...]
    median_of: float | None
    median_against: float | None
    verdict: Verdict

    @property
    def value(self) -> float | None:
        return median(self.per_round) if self.per_round else None


def outcome_of(figure: Figure, records: Sequence[Record]) -> Outcome:
    """Compute a figure over the records of its scenario. One void run among them makes the figure void."""
    cells = [figure.of] if figure.against is None else [figure.of, figure.against]
    concerned = [record for record in records if record.server in {cell.server for cell in cells}]
    if any(record.is_void for record in concerned):
        return Outcome(figure=figure, per_round=(), median_of=None, median_against=None, verdict="void")
    rows: list[list[float]] = []
    for number in sorted({record.round for record in concerned}):
        found = [_value(cell, number, concerned) for cell in cells]
        values = [value for value in found if value is not None]
        if len(values) == len(cells):
            rows.append(values)
    per_round = tuple(_combined(figure, row) for row in rows)
    return Outcome(
        figure=figure,
        per_round=per_round,
        median_of=median([row[0] for row in rows]) if rows else None,
        median_against=median([row[1] for row in rows]) if rows and figure.against else None,
        verdict=_verdict(figure.target, per_round),
    )


def _value(cell: Cell, number: int, records: Sequence[Record]) -> float | None:
    for record in records:
        if (record.server, record.round) == (cell.server, number):
            sample = record.sample(cell.arm, cell.clients)
            return None if sample is None else sample.values.get(cell.metric)
    return None


def _combined(figure: Figure, row: Sequence[float]) -> float:
    if figure.by == "ratio":
        return row[0] / row[1]
    return row[0] - row[1] if figure.by == "difference" else row[0]


def _verdict(target: Target | None, per_round: Sequence[float]) -> Verdict:
    if not per_round:
        return "not measured"
    if target is None:
        return "no target"
    return "met" if target.is_met_by(median(per_round)) else "missed"
