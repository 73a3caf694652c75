"""The rows that a configuration asks for, on both sides of the split, and what is odd about them. Knows no tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from training.config import TrainConfig
from training.conversation import Conversation
from training.data import SourceRows, count_duplicates, read_source, split_by_content, weighted, without_duplicates
from training.errors import DataError
from training.progress import say


@dataclass(frozen=True, slots=True)
class GatheredRows:
    """Rows to train on, each as often as its weight says, and rows held out, if there are any."""

    train: Sequence[Conversation]
    held_out: Sequence[Conversation] | None


def gather_rows(config: TrainConfig, console: Console) -> GatheredRows:
    """Read every source, report duplicates, hold out what is to be held out, and weight the rest.

    Raises DataError with the problems of all sources at once.
    """
    problems: list[str] = []
    sources = _read(config.data, config, problems)
    held_out_sources = _read(config.eval_data or (), config, problems)
    if problems:
        raise DataError(problems)
    for source in [*sources, *held_out_sources]:
        say(console, f"{source.source}: {len(source.rows):,} rows ({source.form})")
    groups = _marked_duplicates([source.rows for source in sources], config, console)
    held_out = [row for source in held_out_sources for row in source.rows] or None
    if held_out is not None:
        _warn_of_shared(groups, held_out, console)
    elif config.eval_fraction is not None:
        rows = [row for group in groups for row in group]
        split = split_by_content(rows, fraction=config.eval_fraction, seed=config.seed)
        held_out = list(split.held_out)
        left_out = {row.question for row in held_out}
        groups = [[row for row in group if row.question not in left_out] for group in groups]
        say(console, f"held out: {len(held_out):,} of {len(rows):,} rows")
    train = [
        row
        for group, weight in zip(groups, config.weights, strict=True)
        for row in weighted(group, weight=weight, seed=config.seed)
    ]
    if not train:
        raise DataError(["data_weights: they leave no row to train on"])
    return GatheredRows(train, held_out)


def _read(sources: Sequence[str], config: TrainConfig, problems: list[str]) -> list[SourceRows]:
    read = []
    for source in sources:
        try:
            read.append(read_source(source, config.data_format))
        except DataError as error:
            problems.extend(error.problems)
    return read


def _marked_duplicates(
    groups: Sequence[Sequence[Conversation]], config: TrainConfig, console: Console
) -> list[list[Conversation]]:
    """Each source's rows, without those that an earlier row equals where they are to be dropped."""
    rows = [row for group in groups for row in group]
    count = count_duplicates(rows)
    if not count:
        return [list(group) for group in groups]
    if config.duplicates == "keep":
        say(console, f"warning: data: {count:,} of {len(rows):,} rows are duplicates (duplicates=drop leaves them out)")
        return [list(group) for group in groups]
    say(console, f"data: {count:,} of {len(rows):,} rows are duplicates, and left out")
    first = {id(row) for row in without_duplicates(rows)}
    return [[row for row in group if id(row) in first] for group in groups]


def _warn_of_shared(
    groups: Sequence[Sequence[Conversation]], held_out: Sequence[Conversation], console: Console
) -> None:
    questions = {row.question for group in groups for row in group}
    shared = sum(row.question in questions for row in held_out)
    if shared:
        say(console, f"warning: {shared:,} of {len(held_out):,} held-out rows ask what a training row asks too")
