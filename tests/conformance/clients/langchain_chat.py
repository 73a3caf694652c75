"""langchain-openai: ChatOpenAI with its messages, tools and structured output."""

import asyncio
from typing import Any, Literal

import openai
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field, SecretStr

from tests.conformance.clients.proving import QUESTION, Place, failure, place, proved

LIMIT = 24
TOOL_LIMIT = 120


class Review(BaseModel):
    """What a review says."""

    sentiment: Literal["positive", "negative"]
    stars: int = Field(ge=1, le=5)


class GetWeather(BaseModel):
    """The weather of a city."""

    city: Literal["Paris", "Rome"]
    days: int = Field(ge=1, le=3)


def _model(at: Place, **fields: Any) -> ChatOpenAI:
    fields = {"temperature": 0, "max_tokens": LIMIT, "max_retries": 0, "stream_usage": True} | fields
    return ChatOpenAI(model=at.model, base_url=at.url, api_key=SecretStr("none"), **fields)


def chat(at: Place) -> str:
    model = _model(at)
    answer = model.invoke([SystemMessage("Answer in one word."), HumanMessage(QUESTION)])
    assert isinstance(answer, AIMessage)
    assert isinstance(answer.content, str)
    assert answer.content
    assert answer.usage_metadata is not None
    assert 0 < answer.usage_metadata["output_tokens"] <= LIMIT
    assert answer.response_metadata["finish_reason"] in ("stop", "length")
    proved("chat")
    texts = [message.content for message in model.batch([QUESTION] * 3)]
    assert texts[0]
    assert texts == [texts[0]] * 3
    proved("batch")
    return str(texts[0])


def streams(at: Place, whole: str) -> None:
    model = _model(at)
    chunks = list(model.stream(QUESTION))
    assert "".join(str(chunk.content) for chunk in chunks) == whole
    total: Any = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    assert isinstance(total, AIMessageChunk)
    assert total.usage_metadata is not None
    assert total.usage_metadata["output_tokens"] > 0

    async def streamed() -> str:
        return "".join([str(chunk.content) async for chunk in model.astream(QUESTION)])

    assert asyncio.run(streamed()) == whole
    proved("stream with usage, sync and async")


def sampling(at: Place, whole: str) -> None:
    answer = _model(at, logprobs=True, top_logprobs=3).invoke(QUESTION)
    tokens = answer.response_metadata["logprobs"]["content"]
    assert b"".join(bytes(token["bytes"]) for token in tokens).decode() == whole
    proved("logprobs")
    middle = whole[len(whole) // 2 :][:3]
    assert _model(at).invoke(QUESTION, stop=[middle]).content == whole[: whole.index(middle)]
    proved("stop")
    generated = _model(at, n=2, temperature=1, seed=5).generate([[HumanMessage(QUESTION)]])
    assert len(generated.generations[0]) == 2
    proved("n")
    penalised = _model(at, frequency_penalty=1, presence_penalty=1, logit_bias={"1000": 100}).invoke(QUESTION)
    assert penalised.content != whole
    proved("penalties and logit_bias")


def tools(at: Place) -> None:
    model = _model(at, max_tokens=TOOL_LIMIT)
    question = HumanMessage("How is the weather in Rome tomorrow?")
    once: dict[str, Any] = {"strict": True, "parallel_tool_calls": False}
    for choice in ("any", "GetWeather"):
        asked = model.bind_tools([GetWeather], tool_choice=choice, **once).invoke([question])
        [call] = asked.tool_calls
        assert call["name"] == "GetWeather"
        assert GetWeather.model_validate(call["args"])
        assert asked.response_metadata["finish_reason"] == "tool_calls"
    answer = model.bind_tools([GetWeather], tool_choice="none").invoke(
        [question, asked, ToolMessage("sunny", tool_call_id=call["id"])]
    )
    assert answer.usage_metadata["input_tokens"] > model.invoke([question]).usage_metadata["input_tokens"]
    assert not answer.tool_calls
    proved("tools with a round trip")
    total: Any = None
    for chunk in model.bind_tools([GetWeather], tool_choice="any", **once).stream([question]):
        total = chunk if total is None else total + chunk
    assert [(call["name"], call["args"]) for call in total.tool_calls] == [("GetWeather", call["args"])]
    proved("tool calls in streams")


def structured(at: Place) -> None:
    model = _model(at, max_tokens=TOOL_LIMIT)
    for method in ("json_schema", "function_calling"):
        asking = model.with_structured_output(Review, method=method, strict=True)
        assert isinstance(asking.invoke(QUESTION), Review)
    proved("with_structured_output by json_schema and function_calling")
    asked = 'Answer with this JSON object and nothing else: {"sentiment": "positive", "stars": 4}'
    either = model.with_structured_output(None, method="json_mode").invoke(asked)
    assert isinstance(either, dict)
    proved("with_structured_output by json_mode")


def errors(at: Place) -> None:
    nobody = _model(Place(url=at.url, model="nobody"))
    assert failure(openai.NotFoundError, lambda: nobody.invoke(QUESTION)).code == "model_not_found"
    proved("errors")


def main(at: Place) -> None:
    whole = chat(at)
    streams(at, whole)
    sampling(at, whole)
    tools(at)
    structured(at)
    errors(at)


if __name__ == "__main__":
    main(place())
