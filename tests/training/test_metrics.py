"""Measures by hand, labels in answers, and that intervals cover what they should."""

import math

import numpy as np
import pytest

from training.comparison import Comparison, compare_rows
from training.config import Task
from training.evaluate import MeasuredRow
from training.labels import find_labels, label_of
from training.metrics import compare, confusion, loss_of, macro_f1_of, mean_of
from training.row_losses import RowLoss
from training.text_scores import chrf, rouge_l


def _rows(expected: list[str], answers: list[str]) -> list[MeasuredRow]:
    return [
        MeasuredRow(f"q{number}", target, answer, RowLoss(2.0 * number, 2))
        for number, (target, answer) in enumerate(zip(expected, answers, strict=True))
    ]


def _compared(expected: list[str], base: list[str], adapter: list[str], task: Task = "auto") -> Comparison:
    return compare_rows(_rows(expected, base), _rows(expected, adapter), task=task, seed=0)


def test_macro_f1_is_the_mean_over_labels_by_hand() -> None:
    expected, given = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 3, 3])
    assert confusion(expected, given, 3).tolist() == [[2, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 1]]
    by_hand = (2 * 2 / (3 + 2) + 2 * 1 / (2 + 2) + 0) / 3
    assert macro_f1_of(expected, given, 3)(np.arange(6)) == pytest.approx(by_hand)
    assert macro_f1_of(expected, given, 3)(np.array([0, 1])) == 1  # labels that are nowhere are left out


def test_loss_weighs_tokens_and_not_rows() -> None:
    loss = loss_of(np.array([1.0, 9.0]), np.array([1.0, 3.0]))
    assert loss(np.arange(2)) == 2.5
    assert loss(np.array([1, 1])) == 3


def test_the_interval_of_a_mean_is_about_two_standard_errors() -> None:
    values = np.array([0.0, 1.0] * 200)
    interval = compare(None, {"mean": mean_of(values)}, num_rows=400, seed=1)["mean"].adapter
    assert interval.value == 0.5
    assert interval.low == pytest.approx(0.5 - 1.96 * 0.5 / 20, abs=0.01)
    assert interval.high == pytest.approx(0.5 + 1.96 * 0.5 / 20, abs=0.01)


def test_the_difference_is_taken_over_the_same_resampled_rows() -> None:
    values = np.random.default_rng(0).random(50)
    pair = compare({"mean": mean_of(values)}, {"mean": mean_of(values + 0.25)}, num_rows=50, seed=0)["mean"]
    assert pair.difference is not None
    assert pair.difference.low == pytest.approx(0.25)
    assert pair.difference.high == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("spam", 0),
        (" Spam.\n", 0),
        ("spam\nbecause", 0),
        ("spammer", None),
        ("not spam", 1),
        ("", None),
        ("“not spam”", 1),
        ("ｓｐａｍ！", 0),
        ("正面的评价", 2),
    ],
)
def test_which_label_an_answer_names(answer: str, label: int | None) -> None:
    assert label_of(answer, ("spam", "not spam", "正面")) == label


def test_labels_are_few_short_and_repeated() -> None:
    assert find_labels(["b", "a ", "a", "b", "b"]) == ("b", "a")
    assert find_labels(["a", "b", "c", "d", "a"]) is None
    assert find_labels(["a"] * 9) is None
    assert find_labels(["x" * 61, "y"] * 9) is None


def test_a_classification_has_accuracy_f1_and_both_confusions() -> None:
    comparison = _compared(["ham", "ham", "spam", "spam"], ["ham", "x", "ham", "spam"], ["Ham.", "ham", "spam", "no"])
    values = {name: (pair.base.value, pair.adapter.value) for name, pair in comparison.metrics.items() if pair.base}
    assert comparison.task == "classification"
    assert values["label_accuracy"] == (0.5, 0.75)
    assert values["exact_match"] == (0.5, 0.5)
    assert values["loss"] == (1.5, 1.5)
    assert values["perplexity"][0] == pytest.approx(math.exp(1.5))
    assert comparison.labels == ("ham", "spam")
    assert comparison.confusion == ((2, 0, 0), (0, 1, 1))
    assert comparison.base_confusion == ((1, 0, 1), (1, 1, 0))
    assert [row.question for row in comparison.won] == ["q1", "q2"]
    assert [row.question for row in comparison.lost] == ["q3"]


def test_free_text_has_rouge_and_chrf_and_its_rows_are_ordered_by_gain() -> None:
    comparison = _compared(["the cat sat", "a dog", "红色的花"], ["no", "a dog", "红"], ["the cat", "no", "红色的花"])
    assert comparison.task == "text"
    assert comparison.confusion is None
    assert set(comparison.metrics) == {"loss", "perplexity", "exact_match", "rouge_l", "chrf"}
    assert [row.question for row in comparison.won] == ["q0", "q2"]
    assert [row.question for row in comparison.lost] == ["q1"]
    assert _compared(["a", "a", "b", "b"], ["a"] * 4, ["b"] * 4, "text").task == "text"


def test_rouge_counts_letters_of_scripts_without_blanks() -> None:
    assert rouge_l(["the cat sat"], ["the cat"]) == [pytest.approx(0.8)]
    assert rouge_l(["红色的花"], ["红的花"]) == [pytest.approx(2 * 3 / 7)]
    assert rouge_l(["Füße"], ["Füße"]) == [1]
    assert chrf(["abc"], ["abc"]) == [pytest.approx(100)]
    assert chrf(["abcdefgh"], ["xyz"]) == [0]


def test_without_a_base_there_is_no_difference() -> None:
    comparison = compare_rows(None, _rows(["a", "b"], ["a", "c"]), task="text", seed=0)
    assert all(pair.base is None and pair.difference is None for pair in comparison.metrics.values())
    assert comparison.rows[0].base is None
    assert (comparison.won, comparison.lost) == ([], [])
