"""Comparison: an adapter beside its base model on the same rows, as numbers and as JSON. Draws and prints nothing."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from adapters.manifest import ScoreFacts
from training.config import Task
from training.evaluate import MeasuredRow
from training.labels import distinct, find_labels, label_of
from training.metrics import Measure, Pair, compare, confusion, loss_of, macro_f1_of, mean_of, perplexity_of
from training.text_scores import chrf, rouge_l

LOWER_IS_BETTER = frozenset({"loss", "perplexity"})


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """One row with both answers, the base's None where it was not asked. `gain` is how much better the adapter's is."""

    question: str
    expected: str
    base: str | None
    adapter: str
    gain: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """`labels` and the counts `[expected, given]` are there for a classification; the last column names no label."""

    task: Literal["classification", "text"]
    metrics: dict[str, Pair]
    rows: tuple[ComparedRow, ...]
    labels: tuple[str, ...] = ()
    base_confusion: tuple[tuple[int, ...], ...] | None = None
    confusion: tuple[tuple[int, ...], ...] | None = None

    @property
    def won(self) -> list[ComparedRow]:
        """Rows that the adapter answers better than the base model, the clearest first."""
        return sorted((row for row in self.rows if row.gain > 0), key=lambda row: -row.gain)

    @property
    def lost(self) -> list[ComparedRow]:
        return sorted((row for row in self.rows if row.gain < 0), key=lambda row: row.gain)

    def to_json(self) -> dict[str, Any]:
        """Everything, in JSON's types."""
        return asdict(self) | {"won": len(self.won), "lost": len(self.lost)}


def score_facts(comparison: Comparison) -> tuple[ScoreFacts, ...]:
    """The measures as a manifest records them."""
    return tuple(
        ScoreFacts(
            name=name,
            before=pair.base.value,
            after=pair.adapter.value,
            difference_low=pair.difference.low,
            difference_high=pair.difference.high,
        )
        for name, pair in comparison.metrics.items()
        if pair.base is not None and pair.difference is not None
    )


@dataclass(frozen=True, slots=True)
class _Scored:
    """One side's measures, and how good each of its answers is, 0 to 1."""

    measures: dict[str, Measure]
    quality: list[float]
    confusion: tuple[tuple[int, ...], ...] | None


def compare_rows(
    base: Sequence[MeasuredRow] | None, adapter: Sequence[MeasuredRow], *, task: Task, seed: int
) -> Comparison:
    """Score both sides of the same rows. `auto` takes few, short, repeated answers for labels.

    Raises TrainingError where free text is to be measured and the extra `train` is not installed.
    """
    expected = [row.expected for row in adapter]
    labels = None if task == "text" else find_labels(expected)
    if task == "classification":
        labels = distinct(expected)
    score: Callable[[Sequence[MeasuredRow]], _Scored] = lambda rows: _scored(rows, labels)  # noqa: E731
    ours, theirs = score(adapter), score(base) if base is not None else None
    base_answers = [row.answer for row in base] if base is not None else [None] * len(adapter)
    gains = (
        [0.0] * len(adapter)
        if theirs is None
        else [after - before for before, after in zip(theirs.quality, ours.quality, strict=True)]
    )
    return Comparison(
        task="text" if labels is None else "classification",
        metrics=compare(
            theirs.measures if theirs is not None else None, ours.measures, num_rows=len(adapter), seed=seed
        ),
        rows=tuple(
            ComparedRow(row.question, row.expected, answer, row.answer, gain)
            for row, answer, gain in zip(adapter, base_answers, gains, strict=True)
        ),
        labels=labels or (),
        base_confusion=theirs.confusion if theirs is not None else None,
        confusion=ours.confusion,
    )


def _scored(rows: Sequence[MeasuredRow], labels: tuple[str, ...] | None) -> _Scored:
    measures: dict[str, Measure] = {}
    losses = [row.loss for row in rows if row.loss is not None]
    if len(losses) == len(rows):
        totals = np.array([loss.total for loss in losses])
        measures["loss"] = loss_of(totals, np.array([float(loss.tokens) for loss in losses]))
        measures["perplexity"] = perplexity_of(measures["loss"])
    measures["exact_match"] = mean_of(np.array([float(row.is_exact) for row in rows]))
    return _with_text(rows, measures) if labels is None else _with_labels(rows, measures, labels)


def _with_labels(rows: Sequence[MeasuredRow], measures: dict[str, Measure], labels: tuple[str, ...]) -> _Scored:
    known = {label: index for index, label in enumerate(labels)}
    expected = np.array([known[row.expected.strip()] for row in rows])
    found = [label_of(row.answer, labels) for row in rows]
    given = np.array([len(labels) if index is None else index for index in found])
    hits = (expected == given).astype(np.float64)
    measures["label_accuracy"] = mean_of(hits)
    measures["macro_f1"] = macro_f1_of(expected, given, len(labels))
    counts = confusion(expected, given, len(labels))
    return _Scored(measures, hits.tolist(), tuple(tuple(row) for row in counts.tolist()))


def _with_text(rows: Sequence[MeasuredRow], measures: dict[str, Measure]) -> _Scored:
    expected, answers = [row.expected for row in rows], [row.answer for row in rows]
    longest = rouge_l(expected, answers)
    measures["rouge_l"] = mean_of(np.array(longest))
    measures["chrf"] = mean_of(np.array(chrf(expected, answers)))
    return _Scored(measures, longest, None)
