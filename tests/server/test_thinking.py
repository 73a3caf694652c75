"""Thoughts over HTTP, before text, forms and calls: content is the form alone, and no call is read in thoughts."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.scripted_base import save_scripted_base
from tests.server.building import app_client, tiny_settings
from tests.server.test_chat import ask
from tests.server.test_chat_fields import stream
from tests.server.test_chat_structure import RESPONSE_FORMAT, TOOLS, calls_of

CALL = '<tool_call>\n{"name": "noon", "arguments": {}}\n</tool_call>'
FORM = '{"ok":true,"size":"small"}'
THOUGHTS = '\n<tool_call> or {"ok":0}?\n'
OPENING = "<think>\n"

Message = dict[str, Any]


async def answers(folder: Path, script: str, opening: str = "", **fields: Any) -> tuple[str, Message, Message]:
    """Why the answer ended, and its message, whole and put together from a stream, by a model that has this script."""
    return await answers_of(save_scripted_base(folder / "scripted", script, opening=opening), folder, **fields)


async def answers_of(base: Path, folder: Path, **fields: Any) -> tuple[str, Message, Message]:
    """The same of a model that is there."""
    async with app_client(tiny_settings(base, folder / "store")) as (_, client):
        asked: dict[str, Any] = {"model": "scripted", "max_tokens": 300} | fields
        [choice] = (await ask(client, **asked))["choices"]
        return choice["finish_reason"], told(choice["message"]), await streamed(client, asked)


def told(message: Message) -> Message:
    functions = [call["function"] for call in message.get("tool_calls", [])]
    return {"content": message["content"] or "", "thoughts": message.get("reasoning_content", ""), "calls": functions}


async def streamed(client: httpx.AsyncClient, fields: dict[str, Any]) -> Message:
    events = await stream(client, **fields)
    deltas = [event["choices"][0]["delta"] for event in events[:-1]]
    return {
        "content": "".join(delta.get("content") or "" for delta in deltas),
        "thoughts": "".join(delta.get("reasoning_content") or "" for delta in deltas),
        "calls": [call["function"] for call in calls_of(events)],
    }


def said(content: str, *calls: str, thoughts: str = THOUGHTS.strip()) -> Message:
    functions = [{"name": name, "arguments": "{}"} for name in calls]
    return {"content": content, "thoughts": thoughts, "calls": functions}


@pytest.mark.parametrize(
    ("opening", "answer", "fields", "reason", "expected"),
    [
        ("", FORM, {"response_format": RESPONSE_FORMAT}, "stop", said(FORM)),
        (OPENING, " yes", {"structured_outputs": {"choice": [" yes", " no"]}}, "stop", said(" yes")),
        ("", "\nab\n", {"structured_outputs": {"regex": r"[a-z\n]+"}}, "stop", said("\nab\n")),
        ("", f"Look.\n{CALL}", {"tools": TOOLS}, "tool_calls", said("Look.", "noon")),
        (OPENING, "Look.", {"tools": TOOLS}, "stop", said("Look.")),
        ("", CALL, {"tools": TOOLS, "tool_choice": "required"}, "tool_calls", said("", "noon")),
        (OPENING, CALL, {"tools": TOOLS, "response_format": RESPONSE_FORMAT}, "tool_calls", said("", "noon")),
        ("", FORM, {"tools": TOOLS, "response_format": RESPONSE_FORMAT}, "stop", said(FORM)),
    ],
)
async def test_thoughts_come_apart_from_what_has_a_form(
    tmp_path: Path, opening: str, answer: str, fields: dict[str, Any], reason: str, expected: Message
) -> None:
    script = f"{'' if opening else '<think>'}{THOUGHTS}</think>\n\n{answer}"
    assert await answers(tmp_path, script, opening, **fields) == (reason, expected, expected)


async def test_an_answer_without_thoughts_has_its_form_at_once(tmp_path: Path) -> None:
    expected = said(FORM, thoughts="")
    assert await answers(tmp_path, FORM, response_format=RESPONSE_FORMAT) == ("stop", expected, expected)


async def test_where_the_prompt_has_closed_the_thoughts_there_are_none(tmp_path: Path) -> None:
    script = f"<think></think>\n\n{FORM}"
    opening = "<think>\n\n</think>\n\n"
    _, whole, parts = await answers(tmp_path, script, opening, response_format=RESPONSE_FORMAT, n=1)
    assert whole == parts
    assert whole["thoughts"] == ""
    json.loads(whole["content"])


async def test_thoughts_that_use_up_all_tokens_leave_no_content(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"response_format": RESPONSE_FORMAT, "max_tokens": 20}
    reason, whole, parts = await answers(tmp_path, f"{THOUGHTS}</think>\n\n{FORM}", OPENING, **fields)
    assert (reason, whole["content"]) == ("length", "")
    assert THOUGHTS.strip().startswith(whole["thoughts"])
    assert parts == whole


async def test_a_tag_in_thoughts_without_an_end_calls_nothing(tmp_path: Path) -> None:
    expected = said("", thoughts="I say <tool_call> and stop.")
    script = "I say <tool_call> and stop."
    assert await answers(tmp_path, script, OPENING, tools=TOOLS) == ("stop", expected, expected)


@pytest.mark.parametrize(
    ("opening", "answer", "fields", "expected"),
    [
        (OPENING, FORM, {"response_format": RESPONSE_FORMAT}, said(FORM)),
        ("", f"Look.\n{CALL}", {"tools": TOOLS}, said("Look.", "noon")),
        ("", CALL, {"tools": TOOLS, "tool_choice": "required"}, said("", "noon")),
        ("", "It is small.", {}, said("It is small.")),
    ],
)
async def test_tags_may_be_special_tokens(
    tmp_path: Path, opening: str, answer: str, fields: dict[str, Any], expected: Message
) -> None:
    script = f"{'' if opening else '<think>'}{THOUGHTS}</think>\n\n{answer}"
    tags = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
    base = save_scripted_base(tmp_path / "scripted", script, opening=opening, special_tokens=tags)
    _, whole, parts = await answers_of(base, tmp_path, **fields)
    assert (whole, parts) == (expected, expected)
