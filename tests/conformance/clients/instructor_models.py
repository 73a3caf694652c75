"""instructor: pydantic models out of answers, by each of its ways to ask."""

import asyncio
from typing import Any, Literal

import instructor
from instructor import Mode
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, ConfigDict, Field

from tests.conformance.clients.proving import QUESTION, Place, place, proved


class Review(BaseModel):
    """What a review says."""

    model_config = ConfigDict(extra="forbid")

    sentiment: Literal["positive", "negative"]
    stars: int = Field(ge=1, le=5)


def _fields(model: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": QUESTION}]
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": 120, "max_retries": 1}


def modes(client: OpenAI, model: str) -> None:
    for mode in (Mode.TOOLS, Mode.JSON_SCHEMA):
        asking = instructor.from_openai(client, mode=mode)
        review, answer = asking.create_with_completion(response_model=Review, **_fields(model))
        assert isinstance(review, Review)
        assert answer.usage.completion_tokens > 0
    proved("modes TOOLS and JSON_SCHEMA")


def streams(client: OpenAI, model: str) -> None:
    asking = instructor.from_openai(client, mode=Mode.TOOLS)
    whole = asking.create(response_model=Review, **_fields(model))
    partial = list(asking.create_partial(response_model=Review, **_fields(model)))
    assert len(partial) > 1
    assert partial[-1].model_dump() == whole.model_dump()
    proved("create_partial")


async def asynchronous(at: Place) -> None:
    async with AsyncOpenAI(base_url=at.url, api_key="none", max_retries=0) as client:
        asking = instructor.from_openai(client, mode=Mode.TOOLS)
        reviews = await asyncio.gather(*(asking.create(response_model=Review, **_fields(at.model)) for _ in range(3)))
    assert all(isinstance(review, Review) for review in reviews)
    proved("async")


def main(at: Place) -> None:
    with OpenAI(base_url=at.url, api_key="none", max_retries=0) as client:
        modes(client, at.model)
        streams(client, at.model)
    asyncio.run(asynchronous(at))


if __name__ == "__main__":
    main(place())
