"""openai for Python, asynchronous, on a server with keys that computes one request at a time and lets one wait."""

import asyncio
from contextlib import suppress
from typing import Any

import httpx2
import openai
from openai import AsyncOpenAI, AsyncStream, DefaultAsyncHttpxClient
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from tests.conformance.clients.proving import (
    HOG,
    HOG_TOKENS,
    KEY,
    LIMITED_KEY,
    REQUESTS_PER_MINUTE,
    Place,
    failure_of,
    place,
    proved,
)

USER: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello."}]


async def _hog(client: AsyncOpenAI, model: str) -> AsyncStream[ChatCompletionChunk]:
    """A stream that has begun, and would hold the only seat for very long."""
    stream = await client.chat.completions.create(
        model=model, messages=USER, max_tokens=HOG_TOKENS, extra_body=HOG, stream=True
    )
    await anext(aiter(stream))
    return stream


async def keys(client: AsyncOpenAI, model: str) -> None:
    for key in ("wrong", KEY + "x"):
        stranger = client.with_options(api_key=key).chat.completions
        asking = stranger.create(model=model, messages=USER, max_tokens=1)
        assert (await failure_of(openai.AuthenticationError, asking)).code == "invalid_api_key"
    proved("401 for a wrong key")
    error = await failure_of(openai.PermissionDeniedError, client.models.delete("nobody"))
    assert error.code == "admin_key_required"
    proved("403 for a chat key where an admin key is needed")


async def hanging_up(client: AsyncOpenAI, model: str) -> None:
    patient = client.with_options(timeout=20)
    for _ in range(4):
        await (await _hog(patient, model)).close()  # the next one begins only when this one is gone
    proved("a stream that is closed ends its request")
    for _ in range(3):
        whole = asyncio.create_task(
            patient.chat.completions.create(model=model, messages=USER, max_tokens=HOG_TOKENS, extra_body=HOG)
        )
        await asyncio.sleep(0.3)
        whole.cancel()
        with suppress(asyncio.CancelledError):
            await whole
    await patient.chat.completions.create(model=model, messages=USER, max_tokens=1)
    proved("a call that is cancelled ends its request")


async def retries(client: AsyncOpenAI, model: str, statuses: list[int]) -> None:
    async def ask(max_retries: int) -> Any:
        asking = client.with_options(max_retries=max_retries).chat.completions.with_raw_response
        return await asking.create(model=model, messages=USER, max_tokens=2)

    hog = await _hog(client, model)
    one, other = asyncio.create_task(ask(0)), asyncio.create_task(ask(0))
    [refused], [waiting] = await asyncio.wait((one, other), return_when=asyncio.FIRST_COMPLETED)
    error = refused.exception()
    assert isinstance(error, openai.InternalServerError), error
    assert error.status_code == 503
    assert error.code == "engine_overloaded"
    assert int(error.response.headers["retry-after"]) >= 1
    proved("503 with Retry-After from a full server")
    statuses.clear()
    patient = asyncio.create_task(ask(8))
    while 503 not in statuses:
        await asyncio.sleep(0.05)
    await hog.close()
    answer = await patient
    assert answer.retries_taken >= 1
    assert answer.parse().choices[0].message.content is not None
    assert (await waiting).status_code == 200
    proved("a refused request is tried again")


async def limits(client: AsyncOpenAI, model: str, statuses: list[int]) -> None:
    async def ask(max_retries: int) -> None:
        limited = client.with_options(api_key=LIMITED_KEY, max_retries=max_retries).chat.completions
        await limited.create(model=model, messages=USER, max_tokens=1)

    async def ask_too_often() -> None:
        for _ in range(3 * REQUESTS_PER_MINUTE):
            await ask(0)

    error = await failure_of(openai.RateLimitError, ask_too_often())
    assert error.code == "rate_limit_exceeded"
    assert int(error.response.headers["retry-after"]) >= 1
    statuses.clear()
    await ask(3)
    assert statuses[0] == 429
    assert statuses[-1] == 200
    proved("429 with Retry-After from a key over its limit, and tried again")


async def main(at: Place) -> None:
    statuses: list[int] = []

    async def note(response: httpx2.Response) -> None:
        statuses.append(response.status_code)

    http = DefaultAsyncHttpxClient(event_hooks={"response": [note]})
    async with AsyncOpenAI(base_url=at.url, api_key=KEY, max_retries=0, http_client=http) as client:
        await keys(client, at.model)
        await hanging_up(client, at.model)
        await retries(client, at.model, statuses)
        await limits(client, at.model, statuses)


if __name__ == "__main__":
    asyncio.run(main(place()))
