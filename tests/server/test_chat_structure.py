"""Structured output and tools over HTTP: what must have a form has it, whole and streamed, on base and adapters."""

import json
import re
from typing import Any

import pytest

from tests.server.building import chat_body, events_of, soft_prompt_files
from tests.server.conftest import Served
from tests.server.structure.sampling import tiny_id
from tests.server.test_chat import ask, content, refusal
from tests.server.test_chat_fields import stream, texts_by_index

SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "size": {"enum": ["small", "large"]}},
    "required": ["ok", "size"],
    "additionalProperties": False,
}
RESPONSE_FORMAT = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA, "strict": True}}
NOTHING = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"enum": ["Rome", "Oslo"]}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    },
    {"type": "function", "function": {"name": "noon", "parameters": {"type": "object", "additionalProperties": False}}},
]


def calls_of(events: list[Any]) -> list[dict[str, Any]]:
    """A stream's tool calls, put together as clients do it."""
    calls: list[dict[str, Any]] = []
    for event in events[:-1]:
        deltas = event["choices"][0]["delta"].get("tool_calls", [])
        assert len(deltas) <= 1, "some clients read only the first of a chunk"
        for delta in deltas:
            if "id" in delta:
                assert delta["index"] == len(calls)
                calls.append({"id": delta["id"], "type": delta["type"], "function": dict(delta["function"])})
            else:
                calls[delta["index"]]["function"]["arguments"] += delta["function"]["arguments"]
    return calls


@pytest.mark.parametrize("model", ["tiny-llama", "team"])
async def test_json_schema_holds_whole_streamed_and_for_several_choices(served: Served, model: str) -> None:
    running, client = served
    running.services.registry.publish("team", soft_prompt_files(1))
    fields: dict[str, Any] = {"model": model, "response_format": RESPONSE_FORMAT, "temperature": 1.0, "seed": 3}
    body = await ask(client, **fields, n=4, max_tokens=100)
    for choice in body["choices"]:
        assert choice["finish_reason"] == "stop"
        made = json.loads(choice["message"]["content"])
        assert isinstance(made["ok"], bool)
        assert made["size"] in ("small", "large")
        assert choice["message"]["content"] == json.dumps(made, separators=(",", ":"))
    texts = texts_by_index(await stream(client, **fields, n=4, max_tokens=100))
    assert texts == {i: choice["message"]["content"] for i, choice in enumerate(body["choices"])}


async def test_json_object_is_one_or_ends_by_length(served: Served) -> None:
    _, client = served
    for seed in range(4):
        body = await ask(
            client, model="tiny-llama", response_format={"type": "json_object"}, temperature=1.0, seed=seed
        )
        if body["choices"][0]["finish_reason"] == "stop":
            assert isinstance(json.loads(content(body)), dict)
        assert content(body).startswith("{")


async def test_regex_choice_and_grammar(served: Served) -> None:
    _, client = served
    regex = await ask(client, model="tiny-llama", structured_outputs={"regex": "[a-c]{4}-[0-9]{2}"})
    assert re.fullmatch("[a-c]{4}-[0-9]{2}", content(regex))
    choice = await ask(client, model="tiny-llama", structured_outputs={"choice": ["yes", "no"]})
    assert content(choice) in ("yes", "no")
    grammar = await ask(client, model="tiny-llama", structured_outputs={"grammar": 'start: "x" ("y" | "z") "x"'})
    assert content(grammar) in ("xyx", "xzx")


async def test_required_tool_is_called_and_its_result_goes_back(served: Served) -> None:
    _, client = served
    fields: dict[str, Any] = {"model": "tiny-llama", "tools": TOOLS, "max_tokens": 200, "parallel_tool_calls": False}
    body = await ask(client, **fields, tool_choice="required")
    message = body["choices"][0]["message"]
    assert body["choices"][0]["finish_reason"] == "tool_calls"
    assert message["content"] is None
    (call,) = message["tool_calls"]
    assert call["function"]["name"] in ("weather", "noon")
    json.loads(call["function"]["arguments"])
    streamed = calls_of(await stream(client, **fields, tool_choice="required"))
    assert [made["function"] for made in streamed] == [call["function"]]
    messages = [
        {"role": "user", "content": "weather?"},
        message,
        {"role": "tool", "tool_call_id": call["id"], "content": "sunny"},
    ]
    after = await ask(client, **fields | {"max_tokens": 5, "messages": messages, "tool_choice": "none"})
    assert after["choices"][0]["message"].get("tool_calls") is None


async def test_named_tool_is_the_one_that_is_called(served: Served) -> None:
    _, client = served
    choice = {"type": "function", "function": {"name": "weather"}}
    body = await ask(client, model="tiny-llama", tools=TOOLS, tool_choice=choice, max_tokens=200)
    (call,) = body["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"])["city"] in ("Rome", "Oslo")


async def test_auto_may_answer_with_text(served: Served) -> None:
    _, client = served
    body = await ask(client, model="tiny-llama", tools=TOOLS, max_tokens=10)
    message = body["choices"][0]["message"]
    assert message["content"] or message["tool_calls"]
    assert content(body) == "".join(
        texts_by_index(await stream(client, model="tiny-llama", tools=TOOLS, max_tokens=10))[0]
    )


@pytest.mark.parametrize("model", ["tiny-llama", "team"])
@pytest.mark.parametrize("first", ["<", "{"])
async def test_with_tools_and_a_form_the_answer_is_calls_or_the_form(served: Served, model: str, first: str) -> None:
    running, client = served
    running.services.registry.publish("team", soft_prompt_files(1))
    fields: dict[str, Any] = {"model": model, "response_format": RESPONSE_FORMAT, "tools": TOOLS, "n": 2}
    fields |= {"max_tokens": 150, "parallel_tool_calls": False, "temperature": 1.0, "seed": 4}
    fields["logit_bias"] = {str(tiny_id(first)): 30}  # a tag's first character, or the form's
    body = await ask(client, **fields)
    events = await stream(client, **fields)
    for choice in body["choices"]:
        message = choice["message"]
        if first == "{":
            assert choice["finish_reason"] == "stop"
            assert message.get("tool_calls") is None
            assert json.loads(message["content"])["size"] in ("small", "large")
        else:
            assert choice["finish_reason"] == "tool_calls"
            assert message["content"] is None
            assert [call["function"]["name"] in ("weather", "noon") for call in message["tool_calls"]] == [True]
    texts = [choice["message"]["content"] or "" for choice in body["choices"]]
    assert [texts_by_index(events).get(index, "") for index in range(2)] == texts
    called = calls_of([event for event in events[:-1] if event["choices"][0]["index"] == 0] + events[-1:])
    assert [call["function"] for call in called] == [
        call["function"] for call in body["choices"][0]["message"].get("tool_calls", [])
    ]


async def test_a_form_has_no_turn_where_a_tool_must_be_called(served: Served) -> None:
    _, client = served
    fields: dict[str, Any] = {"response_format": RESPONSE_FORMAT, "tools": TOOLS, "max_tokens": 150}
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        body = await ask(client, model="tiny-llama", **fields, tool_choice=choice)
        assert body["choices"][0]["message"]["content"] is None
    silent = await ask(client, model="tiny-llama", **fields, tool_choice="none")
    assert json.loads(content(silent))["size"] in ("small", "large")


async def test_tools_enter_the_prompt_unless_none_may_be_called(served: Served) -> None:
    _, client = served
    without = (await ask(client, model="tiny-llama", max_tokens=1))["usage"]["prompt_tokens"]
    none = (await ask(client, model="tiny-llama", max_tokens=1, tools=TOOLS, tool_choice="none"))["usage"]
    told = (await ask(client, model="tiny-llama", max_tokens=1, tools=TOOLS))["usage"]
    assert without == none["prompt_tokens"] < told["prompt_tokens"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": NOTHING}, "response_format.json_schema.schema"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "("}}, "structured_outputs.regex"),
        ({"structured_outputs": {"choice": ["a"], "regex": "b"}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}, "structured_outputs"),
        ({"structured_outputs": {"grammar": "start: /(?s:.*)/"}, "tools": TOOLS}, "structured_outputs.grammar"),
        ({"structured_outputs": {"regex": "("}, "tools": TOOLS}, "structured_outputs.regex"),
        ({"response_format": NOTHING, "tools": TOOLS}, "response_format.json_schema.schema"),
        ({"response_format": NOTHING, "tools": TOOLS, "tool_choice": "required"}, "response_format.json_schema.schema"),
        ({"response_format": NOTHING, "tools": TOOLS, "tool_choice": "none"}, "response_format.json_schema.schema"),
        ({"response_format": RESPONSE_FORMAT, "min_tokens": 5}, "min_tokens"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
    ],
)
async def test_forms_that_cannot_be_are_refused_by_name(served: Served, fields: dict[str, Any], param: str) -> None:
    _, client = served
    status, error = await refusal(client, chat_body("tiny-llama") | fields)
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)


async def test_stream_of_a_form_has_the_usual_events(served: Served) -> None:
    _, client = served
    answer = await client.post(
        "/v1/chat/completions", json=chat_body("tiny-llama", stream=True, response_format=RESPONSE_FORMAT)
    )
    events = events_of(answer.text)
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert events[-2]["choices"][0]["finish_reason"] in ("stop", "length")
    assert events[-1] == "[DONE]"
