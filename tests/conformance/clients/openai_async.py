"""openai for Python, asynchronous: many at once, and the helpers for streams."""

import asyncio

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.conformance.clients.proving import QUESTION, Place, place, proved

LIMIT = 16


def _messages(number: int) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": f"{number}. {QUESTION}"}]


async def _whole(client: AsyncOpenAI, model: str, number: int) -> str:
    answer = await client.chat.completions.create(
        model=model, messages=_messages(number), temperature=0, max_tokens=LIMIT
    )
    return answer.choices[0].message.content or ""


async def _streamed(client: AsyncOpenAI, model: str, number: int) -> str:
    stream = await client.chat.completions.create(
        model=model, messages=_messages(number), temperature=0, max_tokens=LIMIT, stream=True
    )
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def many_at_once(client: AsyncOpenAI, model: str) -> None:
    alone = await _whole(client, model, 0)
    assert alone
    whole = await asyncio.gather(*(_whole(client, model, number) for number in range(8)))
    streamed = await asyncio.gather(*(_streamed(client, model, number) for number in range(8)))
    assert whole == streamed
    assert whole[0] == alone
    proved("async, eight at once")


async def stream_helper(client: AsyncOpenAI, model: str) -> None:
    said = await _whole(client, model, 0)
    stop = said[len(said) // 2 :][:3]  # the helper raises when an answer is cut by its length
    whole = said[: said.index(stop)]
    kinds = []
    async with client.chat.completions.stream(
        model=model,
        messages=_messages(0),
        temperature=0,
        max_tokens=LIMIT,
        stop=stop,
        logprobs=True,
        stream_options={"include_usage": True},
    ) as stream:
        async for event in stream:
            kinds.append(event.type)
            if event.type == "content.done":
                assert event.content == whole
        final = await stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done", "logprobs.content.delta", "logprobs.content.done"} == set(kinds)
    assert final.choices[0].message.content == whole
    assert final.usage is not None
    assert final.usage.completion_tokens > 0
    proved(".stream() helper")


async def main(at: Place) -> None:
    async with AsyncOpenAI(base_url=at.url, api_key="none", max_retries=0) as client:
        await many_at_once(client, at.model)
        await stream_helper(client, at.model)


if __name__ == "__main__":
    asyncio.run(main(place()))
