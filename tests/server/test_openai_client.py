"""The stock openai client against a real server on a socket."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionAssistantMessageParam, ChatCompletionUserMessageParam

from tests.server.building import Running, multipart, soft_prompt_files


@pytest.fixture
async def client(live: Running) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def _whole(client: AsyncOpenAI, model: str, text: str) -> str:
    answer = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": text}], temperature=0, max_tokens=40
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 40
    return answer.choices[0].message.content or ""


async def _streamed(client: AsyncOpenAI, model: str, text: str) -> str:
    stream = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": text}],
        temperature=0,
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-2].choices[0].finish_reason in ("stop", "length")
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])


async def test_streamed_equals_whole_on_base_and_adapters_at_once(live: Running, client: AsyncOpenAI) -> None:
    async with httpx.AsyncClient(base_url=live.url, timeout=60) as http:
        for number in range(4):
            files = multipart(soft_prompt_files(number, num_virtual_tokens=3 + 9 * number))
            assert (await http.post("/v1/adapters", data={"name": f"team-{number}"}, files=files)).status_code == 201
    models = [model.id async for model in client.models.list()]
    assert models == ["tiny-llama", "team-0", "team-1", "team-2", "team-3"]
    asked = [(model, f"question {number}") for number in range(6) for model in models]
    whole = await asyncio.gather(*(_whole(client, *question) for question in asked))
    streamed = await asyncio.gather(*(_streamed(client, *question) for question in asked))
    assert whole == streamed
    assert len(set(whole)) > 10


async def test_errors_come_as_the_clients_own(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="nobody") as unknown:
        await _whole(client, "nobody", "hello")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(
            model="tiny-llama", messages=[{"role": "user", "content": "x"}], frequency_penalty=3
        )
    assert refused.value.param == "frequency_penalty"


async def test_a_conversation_goes_on_with_the_answers_own_message(client: AsyncOpenAI) -> None:
    question: ChatCompletionUserMessageParam = {"role": "user", "content": "hello"}
    first = await client.chat.completions.create(model="tiny-llama", messages=[question], max_tokens=8)
    message = cast(ChatCompletionAssistantMessageParam, first.choices[0].message)  # as the client's own examples do
    second = await client.chat.completions.create(
        model="tiny-llama", messages=[question, message, question], max_tokens=8
    )
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.prompt_tokens > 2 * first.usage.prompt_tokens
