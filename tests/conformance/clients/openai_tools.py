"""openai for Python: tools, called when the request says so, with a round trip."""

import json
from typing import Any, Literal, cast

import openai
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam, ChatCompletionToolUnionParam
from pydantic import BaseModel, Field

from tests.conformance.clients.proving import Place, place, proved

LIMIT = 120
USER: list[ChatCompletionMessageParam] = [{"role": "user", "content": "How is the weather in Rome tomorrow?"}]


class GetWeather(BaseModel):
    """The weather of a city."""

    city: Literal["Paris", "Rome"]
    days: int = Field(ge=1, le=3)


class GetTime(BaseModel):
    """The time in a city."""

    city: Literal["Paris", "Rome"]


TOOLS: list[ChatCompletionToolUnionParam] = [
    openai.pydantic_function_tool(GetWeather),
    openai.pydantic_function_tool(GetTime),
]
KINDS: dict[str, type[BaseModel]] = {"GetWeather": GetWeather, "GetTime": GetTime}
WEATHER = {"type": "function", "function": {"name": "GetWeather"}}
"""The choice of one function by its name."""


def _ask(client: OpenAI, model: str, messages: list[ChatCompletionMessageParam], **fields: Any) -> ChatCompletion:
    answer = client.chat.completions.create(
        model=model, messages=messages, tools=TOOLS, temperature=0, max_tokens=LIMIT, **fields
    )
    assert isinstance(answer, ChatCompletion)
    return answer


def _calls(answer: ChatCompletion) -> list[tuple[str, BaseModel]]:
    """Name and checked arguments of each call."""
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls", answer
    assert choice.message.tool_calls
    calls = []
    for call in choice.message.tool_calls:
        assert call.type == "function"
        assert call.id
        calls.append((call.function.name, KINDS[call.function.name].model_validate_json(call.function.arguments)))
    assert len({call.id for call in choice.message.tool_calls}) == len(calls)
    return calls


def choices(client: OpenAI, model: str) -> None:
    [_] = _calls(_ask(client, model, USER, tool_choice="required", parallel_tool_calls=False))
    proved("tool_choice required")
    assert {name for name, _ in _calls(_ask(client, model, USER, tool_choice=WEATHER))} == {"GetWeather"}
    proved("tool_choice with a named function")
    silent = _ask(client, model, USER, tool_choice="none")
    assert silent.choices[0].message.tool_calls is None
    assert silent.choices[0].message.content
    proved("tool_choice none")
    free = _ask(client, model, USER, tool_choice="auto").choices[0]
    assert free.message.content or free.message.tool_calls
    assert (free.finish_reason == "tool_calls") == bool(free.message.tool_calls)
    proved("tool_choice auto")
    several = _ask(client, model, USER, tool_choice="required", parallel_tool_calls=True).choices[0].message.tool_calls
    assert several is not None
    assert len(several) > 1
    proved("parallel_tool_calls")


def round_trip(client: OpenAI, model: str) -> None:
    asked = _ask(client, model, USER, tool_choice=WEATHER, parallel_tool_calls=False)
    message = asked.choices[0].message
    assert message.tool_calls
    told: list[ChatCompletionMessageParam] = [
        *USER,
        cast(ChatCompletionMessageParam, message),
        *(
            cast(ChatCompletionMessageParam, {"role": "tool", "tool_call_id": call.id, "content": '{"sky": "sunny"}'})
            for call in message.tool_calls
        ),
    ]
    answer = _ask(client, model, told, tool_choice="none")
    assert answer.choices[0].message.content is not None  # what it says is the model's affair
    assert answer.choices[0].message.tool_calls is None
    assert _prompt_tokens(answer) > _prompt_tokens(_ask(client, model, USER, tool_choice="none"))
    assert _prompt_tokens(_ask(client, model, told, tool_choice="auto")) > _prompt_tokens(asked)
    proved("tool results in the next turn")


def _prompt_tokens(answer: ChatCompletion) -> int:
    assert answer.usage is not None
    return answer.usage.prompt_tokens


def streams(client: OpenAI, model: str) -> None:
    whole = _ask(client, model, USER, tool_choice=WEATHER)
    stream = client.chat.completions.create(
        model=model,
        messages=USER,
        tools=TOOLS,
        tool_choice=cast(Any, WEATHER),
        temperature=0,
        max_tokens=LIMIT,
        stream=True,
    )
    calls: dict[int, dict[str, str]] = {}
    finish_reason = None
    for chunk in stream:
        [choice] = chunk.choices
        finish_reason = choice.finish_reason or finish_reason
        assert not choice.delta.content
        for delta in choice.delta.tool_calls or []:
            assert (delta.index in calls) == (delta.id is None), "an id comes once, with the first delta"
            call = calls.setdefault(delta.index, {"name": "", "arguments": ""})
            assert delta.function is not None
            call["name"] += delta.function.name or ""
            call["arguments"] += delta.function.arguments or ""
    assert finish_reason == "tool_calls"
    streamed = [(call["name"], KINDS[call["name"]].model_validate_json(call["arguments"])) for call in calls.values()]
    assert streamed == _calls(whole)
    proved("tool calls in streams")


def helpers(client: OpenAI, model: str) -> None:
    parsed = client.chat.completions.parse(
        model=model, messages=USER, tools=TOOLS, tool_choice=cast(Any, WEATHER), temperature=0, max_tokens=LIMIT
    )
    calls = parsed.choices[0].message.tool_calls
    assert calls
    assert all(isinstance(call.function.parsed_arguments, GetWeather) for call in calls)
    proved(".parse() with tools")
    with client.chat.completions.stream(
        model=model, messages=USER, tools=TOOLS, tool_choice=cast(Any, WEATHER), temperature=0, max_tokens=LIMIT
    ) as stream:
        events = list(stream)
    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert [json.loads(event.arguments) for event in done] == [json.loads(call.function.arguments) for call in calls]
    assert any(event.type == "tool_calls.function.arguments.delta" for event in events)
    proved(".stream() with tools")


def beside_a_form(client: OpenAI, model: str) -> None:
    """Calls, or text of the form: which one is the model's affair."""
    parsed = client.chat.completions.parse(
        model=model,
        messages=USER,
        tools=TOOLS,
        parallel_tool_calls=False,
        response_format=GetTime,
        temperature=0,
        max_tokens=LIMIT,
    )
    message = parsed.choices[0].message
    if message.tool_calls:
        assert all(isinstance(call.function.parsed_arguments, BaseModel) for call in message.tool_calls)
    else:
        assert isinstance(message.parsed, GetTime)
    form: Any = {"type": "json_object"}
    [(name, _)] = _calls(_ask(client, model, USER, tool_choice=WEATHER, response_format=form))
    assert name == "GetWeather"
    proved("tools and response_format in one request")


def main(at: Place) -> None:
    with OpenAI(base_url=at.url, api_key="none", max_retries=0) as client:
        choices(client, at.model)
        round_trip(client, at.model)
        streams(client, at.model)
        helpers(client, at.model)
        beside_a_form(client, at.model)


if __name__ == "__main__":
    main(place())
