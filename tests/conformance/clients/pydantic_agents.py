"""pydantic-ai: an agent with text, tools and typed output."""

import asyncio
from typing import Any, Literal

from openai import AsyncOpenAI
from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput, RunContext, Tool, ToolDefinition, ToolOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

from tests.conformance.clients.proving import QUESTION, Place, failure_of, place, proved

LIMIT = 24
TOOL_LIMIT = 120


class Review(BaseModel):
    """What a review says."""

    sentiment: Literal["positive", "negative"]
    stars: int = Field(ge=1, le=5)


def _model(at: Place, client: AsyncOpenAI) -> OpenAIChatModel:
    return OpenAIChatModel(at.model, provider=OpenAIProvider(openai_client=client))


def _settings(limit: int) -> ModelSettings:
    return ModelSettings(temperature=0, max_tokens=limit, parallel_tool_calls=False)


async def chat(model: OpenAIChatModel) -> None:
    agent = Agent(model, model_settings=_settings(LIMIT), instructions="Answer in one word.")
    first = await agent.run(QUESTION)
    assert first.output
    assert first.usage.output_tokens > 0
    proved("chat")
    second = await agent.run("Say it again.", message_history=first.all_messages())
    assert second.output
    assert second.usage.input_tokens > first.usage.input_tokens
    proved("conversation")
    async with agent.run_stream(QUESTION) as streamed:
        pieces = [piece async for piece in streamed.stream_text(delta=True, debounce_by=None)]
        assert streamed.usage.output_tokens == first.usage.output_tokens
    assert "".join(pieces) == first.output
    proved("stream with usage")


async def typed(model: OpenAIChatModel) -> None:
    for form in (NativeOutput(Review), ToolOutput(Review)):
        agent: Agent[None, Any] = Agent(model, output_type=form, model_settings=_settings(TOOL_LIMIT), retries=0)
        whole = (await agent.run(QUESTION)).output
        assert isinstance(whole, Review)
        async with agent.run_stream(QUESTION) as streamed:
            assert await streamed.get_output() == whole
    proved("NativeOutput and ToolOutput, whole and streamed")


async def tools(model: OpenAIChatModel) -> None:
    asked: list[str] = []

    def get_weather(city: Literal["Paris", "Rome"]) -> str:
        """The weather of a city."""
        asked.append(city)
        return "sunny"

    async def before_its_result(_: RunContext[None], tool: ToolDefinition) -> ToolDefinition | None:
        return None if asked else tool

    def settings(_: RunContext[None]) -> ModelSettings:
        return _settings(TOOL_LIMIT) if asked else ModelSettings(tool_choice=["get_weather"], **_settings(TOOL_LIMIT))

    agent = Agent(
        model,
        tools=[Tool(get_weather, prepare=before_its_result)],
        output_type=ToolOutput(Review),
        model_settings=settings,
        retries=0,
    )
    result = await agent.run("Would you go out in Rome today?")
    assert asked in (["Rome"], ["Paris"])
    assert isinstance(result.output, Review)
    assert result.usage.requests == 2
    proved("tools with a round trip")


async def errors(at: Place, client: AsyncOpenAI) -> None:
    nobody = Agent(_model(Place(url=at.url, model="nobody"), client))
    error = await failure_of(ModelHTTPError, nobody.run(QUESTION))
    assert error.status_code == 404
    assert isinstance(error.body, dict)
    assert error.body["code"] == "model_not_found"
    proved("errors")


async def main(at: Place) -> None:
    async with AsyncOpenAI(base_url=at.url, api_key="none", max_retries=0) as client:
        model = _model(at, client)
        await chat(model)
        await typed(model)
        await tools(model)
        await errors(at, client)


if __name__ == "__main__":
    asyncio.run(main(place()))
