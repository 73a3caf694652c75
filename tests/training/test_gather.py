"""Several sources with weights, the split by content, duplicates, and what is printed about them."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.training.rows import ENGLISH, write_jsonl
from training.config_reading import load_train_config
from training.conversation import Conversation, alpaca
from training.data import split_by_content, weighted
from training.errors import DataError
from training.gather import GatheredRows, gather_rows


def _gather(data: list[Path], **settings: object) -> tuple[GatheredRows, str]:
    output = io.StringIO()
    config = load_train_config(None, [], {"name": "x", "data": data, **settings})
    return gather_rows(config, Console(file=output)), output.getvalue()


def _numbered(count: int) -> list[Conversation]:
    return [alpaca(f"question {number}", "", "yes") for number in range(count)]


def test_sources_are_weighted(tmp_path: Path) -> None:
    first = write_jsonl(tmp_path / "a.jsonl", [{"instruction": "a", "output": "1"}])
    second = write_jsonl(tmp_path / "b.jsonl", [{"prompt": f"b{number}", "completion": "2"} for number in range(4)])
    rows, said = _gather([first, second], data_weights=[2, 0.5])
    assert [row.messages[0]["content"][0] for row in rows.train] == ["a", "a", "b", "b"]
    assert "a.jsonl: 1 rows (alpaca)" in said
    assert "b.jsonl: 4 rows (prompt_completion)" in said
    with pytest.raises(DataError, match="they leave no row to train on"):
        _gather([first], data_weights=[0.1])


def test_a_weight_repeats_rows_and_draws_a_seeded_share() -> None:
    rows = _numbered(10)
    assert weighted(rows, weight=1, seed=0) == rows
    assert weighted(rows, weight=2.3, seed=0)[:20] == [*rows, *rows]
    assert len(weighted(rows, weight=2.3, seed=0)) == 23
    assert weighted(rows, weight=0.5, seed=0) != weighted(rows, weight=0.5, seed=1)


def test_a_split_is_seeded_and_keeps_equal_questions_together() -> None:
    rows = [*_numbered(50), *_numbered(50), *(alpaca(f" question  {number}", "", "no") for number in range(50))]
    split = split_by_content(rows, fraction=0.2, seed=3)
    assert {row.question for row in split.train}.isdisjoint(row.question for row in split.held_out)
    assert len(split.held_out) == 30
    assert len(split.train) + len(split.held_out) == 150
    assert split == split_by_content(rows, fraction=0.2, seed=3)
    assert split != split_by_content(rows, fraction=0.2, seed=4)
    backwards = split_by_content(rows[::-1], fraction=0.2, seed=3)
    assert {row.question for row in backwards.held_out} == {row.question for row in split.held_out}


def test_a_split_leaves_a_row_on_both_sides() -> None:
    split = split_by_content(_numbered(2), fraction=0.01, seed=0)
    assert (len(split.train), len(split.held_out)) == (1, 1)
    with pytest.raises(DataError, match="all rows ask the same"):
        split_by_content([alpaca("q", "", "a"), alpaca("q", "", "b")], fraction=0.5, seed=0)


def test_the_fraction_is_held_out_of_all_sources(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", ENGLISH)
    rows, said = _gather([file], eval_fraction=0.25, data_weights=[2])
    assert rows.held_out is not None
    assert f"held out: {len(rows.held_out)} of 48 rows" in said
    assert len(rows.train) == 2 * (48 - len(rows.held_out))


def test_duplicates_and_shared_questions_are_counted(tmp_path: Path) -> None:
    row = {"instruction": "q", "output": "a"}
    file = write_jsonl(tmp_path / "rows.jsonl", [row, row, {"instruction": "q2", "output": "a"}, row])
    held_out = write_jsonl(tmp_path / "held_out.jsonl", [row, {"instruction": "q3", "output": "a"}])
    rows, said = _gather([file], eval_data=held_out)
    assert len(rows.train) == 4
    assert "warning: data: 2 of 4 rows are duplicates" in said
    assert "warning: 1 of 2 held-out rows ask what a training row asks too" in said
    rows, said = _gather([file], duplicates="drop")
    assert len(rows.train) == 2
    assert "data: 2 of 4 rows are duplicates, and left out" in said


def test_problems_of_all_sources_are_told_at_once(tmp_path: Path) -> None:
    bad = write_jsonl(tmp_path / "bad.jsonl", [{"instruction": "i", "output": 3}])
    with pytest.raises(DataError) as caught:
        _gather([bad, tmp_path / "none.jsonl"], eval_data=[tmp_path / "gone.csv"])
    assert len(caught.value.problems) == 3
