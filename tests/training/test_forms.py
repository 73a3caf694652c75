"""Every form of rows gives the same conversations, and what is wrong with one names its field."""

import json
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-untyped]
import pytest

from tests.training.rows import write_jsonl
from training.conversation import Conversation, alpaca, rows_digest
from training.data import read_rows, read_source
from training.errors import DataError

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "4"},
]
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def _one(path: Path) -> Conversation:
    (row,) = read_rows(path)
    return row


def test_single_turns_are_equal_in_every_form(tmp_path: Path) -> None:
    forms: dict[str, dict[str, Any]] = {
        "alpaca": {"instruction": "i", "input": "x", "output": "o"},
        "messages": {"messages": [{"role": "user", "content": "i\nx"}, {"role": "assistant", "content": "o"}]},
        "sharegpt": {"conversations": [{"from": "human", "value": "i\nx"}, {"from": "gpt", "value": "o"}]},
        "prompt_completion": {"prompt": "i\nx", "completion": "o"},
    }
    for form, value in forms.items():
        source = read_source(write_jsonl(tmp_path / f"{form}.jsonl", [value]))
        assert (source.form, source.rows) == (form, (alpaca("i", "x", "o"),))
        assert rows_digest(source.rows) == rows_digest([alpaca("i", "x", "o")])


def test_conversations_keep_every_turn(tmp_path: Path) -> None:
    speakers = {"system": "system", "user": "human", "assistant": "gpt"}
    shared = [{"from": speakers[message["role"]], "value": message["content"]} for message in TALK]
    rows = [
        _one(write_jsonl(tmp_path / "messages.jsonl", [{"messages": TALK}])),
        _one(write_jsonl(tmp_path / "sharegpt.jsonl", [{"conversations": shared}])),
        _one(write_jsonl(tmp_path / "system.jsonl", [{"conversations": shared[1:], "system": "Be brief."}])),
        _one(write_jsonl(tmp_path / "completion.jsonl", [{"prompt": TALK[:-1], "completion": TALK[-1:]}])),
    ]
    assert all(row == rows[0] for row in rows)
    assert rows[0].messages == tuple(TALK)
    assert rows[0].turns == (2, 4)
    assert rows[0].place.endswith("messages.jsonl, line 1")


def test_csv_and_parquet_hold_messages_too(tmp_path: Path) -> None:
    expected = _one(write_jsonl(tmp_path / "rows.jsonl", [{"messages": TALK}]))
    (tmp_path / "rows.csv").write_text('messages\n"' + json.dumps(TALK).replace('"', '""') + '"\n')
    datasets.Dataset.from_list([{"messages": TALK}]).to_parquet(str(tmp_path / "rows.parquet"))
    assert _one(tmp_path / "rows.csv") == _one(tmp_path / "rows.parquet") == expected


def test_calls_and_tools_come_in_the_templates_shape(tmp_path: Path) -> None:
    question = {"role": "user", "content": "2+2?"}
    as_text = CALL["function"] | {"arguments": '{"a": 2, "b": 2}'}  # type: ignore[operator]
    plain = [question, {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "function": as_text}]}]
    shared = [
        {"from": "human", "value": "2+2?"},
        {"from": "function_call", "value": json.dumps({"name": "add", "arguments": {"a": 2, "b": 2}})},
    ]
    first = _one(write_jsonl(tmp_path / "messages.jsonl", [{"messages": plain, "tools": [TOOL]}]))
    second = _one(
        write_jsonl(tmp_path / "sharegpt.jsonl", [{"conversations": shared, "tools": json.dumps([TOOL["function"]])}])
    )
    assert first.tools == second.tools == (TOOL,)
    assert second.messages[-1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert first.messages[-1]["tool_calls"] == [CALL | {"id": "c1"}]


def test_arrow_fillers_are_taken_out_of_messages(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "", "tool_calls": [CALL]}]},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    ]
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "rows.parquet"))
    assert read_rows(tmp_path / "rows.parquet") == read_rows(write_jsonl(tmp_path / "rows.jsonl", rows))


def test_weight_0_is_read_and_not_learnt_and_what_follows_the_last_answer_is_left_out(tmp_path: Path) -> None:
    talk = [message | {"weight": 0} if message["content"] == "Hello" else message for message in TALK]
    row = _one(write_jsonl(tmp_path / "rows.jsonl", [{"messages": [*talk, {"role": "user", "content": "Thanks"}]}]))
    assert row.messages == tuple(TALK)
    assert row.turns == (4,)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"messages": 3}, "field 'messages': must be a list, is a number"),
        ({"messages": "[1"}, "field 'messages': is text, but not JSON of a list"),
        ({"messages": []}, "field 'messages': empty"),
        ({"messages": [3]}, "field 'messages[0]': must be an object with role and content, is a number"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "field 'messages[0].role': 'narrator' is not known"),
        ({"messages": [{"role": "user", "content": 1}]}, "field 'messages[0].content': must be a string, is a number"),
        ({"messages": [{"role": "user", "content": "x"}]}, "field 'messages': has no message of the assistant"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "field 'messages': begins with its only answer"),
        (
            {"messages": [{"role": "user", "content": "x", "name": "Ada"}]},
            "field 'messages[0].name': a message of role",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "field 'messages[0].content[0]': must be a part of type 'text'",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "3"}}]}]},
            "field 'messages[0].tool_calls[0].function.arguments': must be an object",
        ),
        ({"messages": TALK, "tools": [{"name": 3}]}, "field 'tools[0]': must be an object with function.name"),
        ({"conversations": [{"from": "cat", "value": "x"}]}, "field 'conversations[0].from': 'cat' is not known"),
        ({"prompt": 3, "completion": "x"}, "field 'prompt': must be a string, is a number"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_field(tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [row])
    with pytest.raises(DataError) as caught:
        read_rows(file)
    assert str(caught.value).startswith(f"{file}, line 1, {problem}")


def test_csv_rows_are_named_by_the_line_they_begin_on(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text('instruction,output\n"two\nlines",b\nc\nd,e,f\n')
    with pytest.raises(DataError) as caught:
        read_rows(file)
    assert [problem.removeprefix(f"{file}, ") for problem in caught.value.problems] == [
        "line 5: has 3 cells, the header 2",
        "line 4, field 'output': missing",
    ]


def test_a_form_can_be_asked_for(tmp_path: Path) -> None:
    row = {"instruction": "i", "output": "o", "prompt": "p", "completion": "c"}
    file = write_jsonl(tmp_path / "rows.jsonl", [row])
    assert _one(file) == alpaca("p", "", "c")
    assert read_rows(file, "alpaca") == [alpaca("i", "", "o")]


@pytest.mark.parametrize("source", ["nobody/nothing", "hf://nobody/nothing:test", "nobody/nothing:test"])
def test_a_hub_id_that_cannot_be_read_is_one_line(source: str) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(source)
    assert str(caught.value).startswith(f"{source}: no such file, and no data set of the hub that can be read: ")
    assert "\n" not in str(caught.value)


def test_a_broken_parquet_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"rows\.parquet: cannot be read as Parquet: "):
        read_rows(tmp_path / "rows.parquet")
