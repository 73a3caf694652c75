"""A comparison as tables for people. Measures nothing."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from training.comparison import LOWER_IS_BETTER, ComparedRow, Comparison
from training.measures import number, title_of
from training.metrics import Interval
from training.progress import say

_EXAMPLES = 3
_LONGEST = 160


def print_comparison(console: Console, comparison: Comparison, *, adapter: str, base: str) -> None:
    """Every measure with its 95 % interval, and rows won and lost."""
    with_base = any(pair.base is not None for pair in comparison.metrics.values())
    table = Table(title=f"{len(comparison.rows):,} held-out rows ({comparison.task})", title_justify="left")
    for title in ("measure", *([base] if with_base else []), adapter, *(["difference"] if with_base else [])):
        table.add_column(Text(title))
    for name, pair in comparison.metrics.items():
        cells: list[str | Text] = [
            title_of(name),
            *([_cell(name, pair.base)] if with_base else []),
            _cell(name, pair.adapter),
        ]
        if pair.difference is not None:
            cells.append(Text(_cell(name, pair.difference, signed=True), style=_style(name, pair.difference)))
        table.add_row(*cells)
    console.print(table)
    say(console, "in brackets: where the value lies for 95 % of resampled rows")
    if with_base:
        say(console, f"won {len(comparison.won):,} rows against the base, lost {len(comparison.lost):,}")
        _print_rows(console, "won", comparison.won)
        _print_rows(console, "lost", comparison.lost)


def _cell(name: str, interval: Interval | None, *, signed: bool = False) -> str:
    if interval is None:
        return ""
    low, high = (number(name, bound, signed=signed) for bound in (interval.low, interval.high))
    return f"{number(name, interval.value, signed=signed)} [{low}, {high}]"


def _style(name: str, difference: Interval) -> str:
    """Green where the whole interval is on the good side, red where it is on the bad one."""
    if difference.low <= 0 <= difference.high:
        return ""
    return "green" if (difference.value < 0) == (name in LOWER_IS_BETTER) else "red"


def _print_rows(console: Console, title: str, rows: Sequence[ComparedRow]) -> None:
    for row in rows[:_EXAMPLES]:
        say(console, f"{title}: …{_short(row.question, at_end=True)}")
        say(console, f"  expected: {_short(row.expected)}")
        say(console, f"  base:     {_short(row.base or '')}")
        say(console, f"  adapter:  {_short(row.adapter)}")


def _short(text: str, *, at_end: bool = False) -> str:
    line = " ".join(text.split())
    if len(line) <= _LONGEST:
        return line
    return line[-_LONGEST:] if at_end else line[:_LONGEST] + "…"
