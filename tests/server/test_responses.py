"""/v1/responses: the stock openai client's newer form of a chat, whole and as typed events."""

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from server.api.response_requests import to_chat_request
from server.api.response_stream import ResponseForm
from server.api.response_writing import ResponseWriter
from server.engine.errors import EngineDead
from server.engine.outputs import FinishReason
from server.error_bodies import error_body
from server.protocol.response_objects import OutputFunctionCall, OutputMessage, OutputReasoning
from server.protocol.responses import ResponsesRequest
from server.text.deltas import CallDelta, TextDelta, Usage
from tests.server.building import Running
from tests.server.conftest import Served

TOOL = {
    "type": "function",
    "name": "weather",
    "description": "says the weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}


@pytest.fixture
async def client(live: Running) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def _chat_fields(**fields: Any) -> dict[str, Any]:
    body = ResponsesRequest.model_validate({"model": "m", "input": "hello", **fields})
    return to_chat_request(body).model_dump(exclude_none=True, by_alias=True)


def _plain(messages: Any) -> list[dict[str, Any]]:
    """Messages with their parts joined."""
    return [
        {**message, "content": "".join(part["text"] for part in message["content"])}
        if "content" in message
        else message
        for message in messages
    ]


async def test_an_answer_is_that_of_the_chat_that_asks_for_the_same(client: AsyncOpenAI) -> None:
    chat = await client.chat.completions.create(
        model="tiny-llama",
        messages=[{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}],
        temperature=0,
        max_tokens=40,
    )
    response = await client.responses.create(
        model="tiny-llama", instructions="be kind", input="hello", temperature=0, max_output_tokens=40
    )
    assert response.output_text == chat.choices[0].message.content
    assert response.usage is not None
    assert chat.usage is not None
    assert response.usage.input_tokens == chat.usage.prompt_tokens
    assert response.usage.output_tokens == chat.usage.completion_tokens
    assert response.usage.total_tokens == chat.usage.total_tokens
    assert (response.object, response.model, response.error) == ("response", "tiny-llama", None)
    assert (response.instructions, response.temperature, response.max_output_tokens) == ("be kind", 0, 40)


async def test_the_events_of_a_stream_make_up_the_response(client: AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny-llama", "input": "hello", "temperature": 0, "max_output_tokens": 40}
    whole = await client.responses.create(**asked)
    async with client.responses.stream(**asked) as stream:
        events: list[Any] = [event async for event in stream]
    types = [event.type for event in events]
    assert types[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert types[-4:-1] == ["response.output_text.done", "response.content_part.done", "response.output_item.done"]
    assert set(types[4:-4]) == {"response.output_text.delta"}
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    last = events[-1]
    assert last.type == f"response.{whole.status}"
    assert last.response.output_text == whole.output_text
    assert whole.usage is not None
    assert last.response.usage.total_tokens == whole.usage.total_tokens


async def test_an_answer_that_is_cut_is_incomplete(client: AsyncOpenAI) -> None:
    response = await client.responses.create(model="tiny-llama", input="hello", max_output_tokens=2)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output[0].type == "message"
    assert response.output[0].status == "incomplete"


async def test_a_conversation_goes_on_with_the_responses_own_items(client: AsyncOpenAI) -> None:
    items: list[Any] = [{"role": "user", "content": "hello"}]
    first: Any = await client.responses.create(
        model="tiny-llama", input=items, max_output_tokens=8, include=["message.output_text.logprobs"], top_logprobs=2
    )
    part = first.output[0].content[0]
    assert part.type == "output_text"
    assert part.logprobs
    assert all(len(entry.top_logprobs) == 2 for entry in part.logprobs)
    items += [*first.output, {"role": "user", "content": "and"}]
    again: Any = await client.responses.create(model="tiny-llama", input=items, max_output_tokens=8)
    assert again.usage.input_tokens > first.usage.input_tokens


def test_items_become_the_messages_of_turns() -> None:
    fields = _chat_fields(
        instructions="be kind",
        input=[
            {"role": "developer", "content": "short"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "weather?"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {
                "role": "assistant",
                "id": "msg_1",
                "content": [{"type": "output_text", "text": "wait", "annotations": []}],
            },
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}", "status": "completed"},
            {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "sun"}]},
            {"role": "assistant", "content": "so"},
            {"role": "assistant", "content": "so"},
        ],
        tools=[TOOL],
    )
    calls = [
        {"id": call_id, "type": "function", "function": {"name": "weather", "arguments": "{}"}}
        for call_id in ("c1", "c2")
    ]
    assert _plain(fields["messages"]) == [
        {"role": "system", "content": "be kind"},
        {"role": "developer", "content": "short"},
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": "wait", "reasoning_content": "hm", "tool_calls": calls},
        {"role": "tool", "content": "rain", "tool_call_id": "c1"},
        {"role": "tool", "content": "sun", "tool_call_id": "c2"},
        {"role": "assistant", "content": "so"},
        {"role": "assistant", "content": "so"},
    ]


def test_tools_and_forms_become_the_chats() -> None:
    function = {name: value for name, value in TOOL.items() if name != "type"}
    choice = {"type": "function", "name": "weather"}
    fields = _chat_fields(tools=[TOOL], tool_choice=choice, parallel_tool_calls=False)
    assert fields["tools"] == [{"type": "function", "function": function}]
    assert fields["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert fields["parallel_tool_calls"] is False
    schema = {"type": "object"}
    fields = _chat_fields(text={"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}})
    assert fields["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": schema, "strict": True},
    }
    fields = _chat_fields(max_output_tokens=7, top_p=0.5, reasoning={"effort": "low"}, metadata={"a": "b"})
    assert (fields["max_completion_tokens"], fields["top_p"], fields["reasoning_effort"]) == (7, 0.5, "low")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": 1}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input.0.content.0.type",
        ),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "c"}, "conversation"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"max_tool_calls": 1}, "max_tool_calls"),
        ({"include": ["reasoning.encrypted_content"]}, "include.0"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.name"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"reasoning": {"effort": "low"}}, "reasoning_effort"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
        ({"instructions": "a" * 100_000}, "input"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_wrong_is_named(served: Served, fields: dict[str, Any], param: str, *, stream: bool) -> None:
    _, client = served
    body = {"model": "tiny-llama", "input": "hello", **fields, "stream": stream}
    response = await client.post("/v1/responses", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param), response.text


async def test_an_unknown_model_is_no_base(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.responses.create(model="nobody", input="hello")
    assert unknown.value.code == "model_not_found"


def _deltas() -> list[TextDelta]:
    """Reasoning, text, and two calls, as the text floor tells of them."""
    pieces = [(0, "weather", ""), (0, None, '{"city"'), (0, None, ": 1}"), (1, "rain", "{}")]
    return [
        TextDelta(0, "", "fp", reasoning="hm "),
        TextDelta(0, "", "fp", reasoning="so"),
        TextDelta(0, "let me ", "fp"),
        TextDelta(0, "see", "fp"),
        *(TextDelta(0, "", "fp", calls=(CallDelta(*piece),)) for piece in pieces),
        TextDelta(0, "", "fp", finish_reason=FinishReason.STOP, usage=Usage(5, 9, 2)),
    ]


def _writer() -> ResponseWriter:
    return ResponseWriter(ResponsesRequest.model_validate({"model": "m", "input": "hello", "tools": [TOOL]}))


def test_reasoning_text_and_calls_are_items_of_their_own() -> None:
    writer = _writer()
    events = [*writer.begin(), *(event for delta in _deltas() for event in writer.add(delta))]
    state: Any = ResponseStreamState(input_tools=omit, text_format=omit)
    adapter: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
    for event in events:
        state.handle_event(adapter.validate_python(event))  # the client's own reading of a stream
    items = writer.response.output
    assert [item.type for item in items] == ["reasoning", "message", "function_call", "function_call"]
    assert [item.status for item in items] == ["completed"] * 4
    assert isinstance(items[0], OutputReasoning)
    assert items[0].content[0].text == "hm so"
    assert isinstance(items[1], OutputMessage)
    assert items[1].content[0].text == "let me see"
    calls = [item for item in items if isinstance(item, OutputFunctionCall)]
    assert [(call.name, call.arguments) for call in calls] == [("weather", '{"city": 1}'), ("rain", "{}")]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == [item.model_dump() for item in items]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == "response.completed"
    assert events[-1]["response"]["usage"]["input_tokens_details"] == {"cached_tokens": 2, "cache_write_tokens": 3}


def test_a_failure_inside_a_stream_is_its_last_event() -> None:
    writer = _writer()
    form = ResponseForm(writer)
    frames = form.frames("fp")
    written = [*frames.begin(), *frames.of(_deltas()[2]), *form.failure(error_body(EngineDead("gone")).error)]
    name, data = written[-1].decode().strip().split("\n")
    assert name == "event: response.failed"
    event = json.loads(data.removeprefix("data: "))
    assert event["response"]["status"] == "failed"
    assert event["response"]["error"]["code"] == "engine_dead"
    assert event["sequence_number"] == len(written) - 1


async def test_a_call_and_its_result_go_there_and_back(client: AsyncOpenAI) -> None:
    city = {"enum": ["Oslo", "Paris"]}  # a random model would write a free string to the end of its context
    parameters = {"type": "object", "properties": {"city": city}, "required": ["city"], "additionalProperties": False}
    tool = {**TOOL, "parameters": parameters}
    items: list[Any] = [{"role": "user", "content": "weather?"}]
    asked: dict[str, Any] = {"model": "tiny-llama", "tools": [tool], "temperature": 0, "max_output_tokens": 200}
    first: Any = await client.responses.create(
        **asked, input=items, tool_choice={"type": "function", "name": "weather"}
    )
    assert first.status == "completed"
    call = first.output[-1]
    assert (call.type, call.name) == ("function_call", "weather")
    assert json.loads(call.arguments)["city"] in city["enum"]
    items += [*first.output, {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]
    second: Any = await client.responses.create(**asked, input=items, tool_choice="none")
    assert second.output[0].type == "message"
    question: Any = await client.responses.create(**asked, input=items[:1], tool_choice="none")
    assert second.usage.input_tokens > question.usage.input_tokens + len(call.arguments) + len("rain")


async def test_tools_and_a_form_in_one_request(client: AsyncOpenAI) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    form: Any = {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": False}}
    tool: Any = {**TOOL, "parameters": {"type": "object", "additionalProperties": False}}
    response: Any = await client.responses.create(
        model="tiny-llama", input="hello", text=form, tools=[tool], temperature=0, max_output_tokens=200
    )
    assert response.status == "completed"
    [*calls, last] = response.output
    assert {call.type for call in calls} <= {"function_call"}
    assert last.type == "function_call" or json.loads(response.output_text)["ok"] in (True, False)


class _Answer(BaseModel):
    is_good: bool


async def test_the_client_parses_what_has_a_form(client: AsyncOpenAI) -> None:
    response = await client.responses.parse(
        model="tiny-llama", input="hello", text_format=_Answer, temperature=0, max_output_tokens=100
    )
    assert isinstance(response.output_parsed, _Answer)
