"""/v1/completions: prompts as they stand, one or many, whole and streamed, by the stock openai client."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from openai.types import Completion

from server.api.completion_writing import LegacyTokens
from server.text.deltas import TokenChoice, TokenText
from tests.server.building import Running, chat_body, multipart, soft_prompt_files
from tests.server.conftest import Served
from tests.tiny import tiny_tokenizer

PROMPTS = ["once upon", "héllo 世界", "a"]


@pytest.fixture
async def client(live: Running) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def _texts(client: AsyncOpenAI, prompt: Any, **fields: Any) -> list[str]:
    asked: dict[str, Any] = {"model": "tiny-llama", "temperature": 0, "max_tokens": 20, "prompt": prompt, **fields}
    whole: Completion = await client.completions.create(**asked)
    streamed = [""] * len(whole.choices)
    reasons: dict[int, str] = {}
    async for chunk in await client.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
            if choice.finish_reason is not None:
                reasons[choice.index] = choice.finish_reason
    assert streamed == [choice.text for choice in whole.choices]
    assert reasons == {choice.index: choice.finish_reason for choice in whole.choices}
    assert [choice.index for choice in whole.choices] == list(range(len(whole.choices)))
    return streamed


async def test_a_prompt_in_every_form(client: AsyncOpenAI) -> None:
    alone = [(await _texts(client, prompt))[0] for prompt in PROMPTS]
    assert len(set(alone)) == len(PROMPTS)
    ids = [tiny_tokenizer()(prompt)["input_ids"] for prompt in PROMPTS]
    assert await _texts(client, PROMPTS) == alone
    assert await _texts(client, ids) == alone
    assert await _texts(client, ids[1]) == [alone[1]]


async def test_several_choices_for_several_prompts(client: AsyncOpenAI) -> None:
    fields = {"temperature": 1, "seed": 7, "n": 3, "best_of": 3}
    texts = await _texts(client, PROMPTS, **fields)
    assert len(set(texts)) == 9
    assert texts[3:6] == await _texts(client, PROMPTS[1], **fields)


async def test_echo_is_the_prompts_own_text(client: AsyncOpenAI) -> None:
    alone = await _texts(client, PROMPTS)
    expected = [prompt + text for prompt, text in zip(PROMPTS, alone, strict=True)]
    assert await _texts(client, PROMPTS, echo=True) == expected
    assert await _texts(client, [tiny_tokenizer()(p)["input_ids"] for p in PROMPTS], echo=True) == expected


async def test_sixteen_tokens_unless_told(client: AsyncOpenAI) -> None:
    answer = await client.completions.create(model="tiny-llama", prompt=PROMPTS[:2], extra_body={"ignore_eos": True})
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 32
    assert answer.usage.prompt_tokens == sum(len(prompt.encode()) for prompt in PROMPTS[:2])
    assert (answer.object, answer.choices[0].finish_reason) == ("text_completion", "length")
    assert answer.system_fingerprint


async def test_usage_is_the_last_chunk_when_asked_for(client: AsyncOpenAI) -> None:
    stream = await client.completions.create(
        model="tiny-llama", prompt=PROMPTS, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == sum(len(prompt.encode()) for prompt in PROMPTS)
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_logprobs_say_where_in_the_text_their_tokens_begin(client: AsyncOpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "tiny-llama",
        "prompt": "hello",
        "temperature": 0,
        "max_tokens": 40,
        "logprobs": 2,
    }
    choice = (await client.completions.create(**asked)).choices[0]
    logprobs = choice.logprobs
    assert logprobs is not None
    tokens, offsets = logprobs.tokens or [], logprobs.text_offset or []
    assert 0 < len(tokens) == len(offsets) == len(logprobs.token_logprobs or []) == len(logprobs.top_logprobs or [])
    for token, offset, likely in zip(tokens, offsets, logprobs.top_logprobs or [], strict=True):
        assert 2 <= len(likely) <= 3
        assert token in likely
        if not token.startswith("bytes:"):
            assert choice.text[offset : offset + len(token)] == token
    streamed = [chunk.choices[0].logprobs async for chunk in await client.completions.create(**asked, stream=True)]
    assert [token for piece in streamed if piece for token in piece.tokens or []] == tokens
    assert [offset for piece in streamed if piece for offset in piece.text_offset or []] == offsets


def test_a_token_inside_a_character_begins_with_it() -> None:
    """Two characters in three tokens each, and one that breaks off."""
    pieces = [b"a", b"\xe4", b"\xb8\x96b", b"\xe4\xb8", b"c", b"", b"\xff", b"d"]
    tokens = [TokenChoice(TokenText(piece, -1.0), ()) for piece in pieces]
    assert LegacyTokens().entered(tokens).text_offset == [0, 1, 1, 3, 4, 5, 5, 6]
    assert b"".join(pieces).decode(errors="replace") == "a世b\ufffdc\ufffdd"
    one_by_one = LegacyTokens()
    assert [one_by_one.entered([token]).text_offset[0] for token in tokens] == [0, 1, 1, 3, 4, 5, 5, 6]
    assert one_by_one.entered(tokens[1:2]).tokens == ["bytes:\\xe4"]


async def test_stop_strings_and_adapters(live: Running, client: AsyncOpenAI) -> None:
    async with httpx.AsyncClient(base_url=live.url) as http:
        files = multipart(soft_prompt_files(5))
        assert (await http.post("/v1/adapters", data={"name": "team"}, files=files)).status_code == 201
    base, text = [(await _texts(client, "once upon", model=model))[0] for model in ("tiny-llama", "team")]
    assert base != text
    assert await _texts(client, "once upon", model="team", stop=[text[3:6]]) == [text[: text.index(text[3:6])]]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [300]}, "prompt"),
        ({"prompt": [300], "echo": True}, "prompt"),
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"prompt": ["a"] * 64, "n": 3}, "n"),
        ({"prompt": ["a", "b" * 2000]}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"best_of": 3, "n": 2}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 0, "echo": True, "n": 2}, "n"),
        ({"max_tokens": 0, "echo": True, "min_tokens": 1}, "min_tokens"),
        ({"prompt": ["a" * 600] * 64, "echo": True, "logprobs": 0}, "prompt"),
        ({"n": 9}, "n"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"temperature": 3}, "temperature"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_wrong_is_named(served: Served, fields: dict[str, Any], param: str, *, stream: bool) -> None:
    running, client = served
    if "stream_options" in fields:
        stream = False
    body = {"model": "tiny-llama", "prompt": "a", "max_tokens": 4, **fields, "stream": stream}
    response = await client.post("/v1/completions", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert running.engine.stats().num_running == 0


async def test_errors_come_as_the_clients_own(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.completions.create(model="nobody", prompt="a")
    assert unknown.value.code == "model_not_found"


async def test_a_prompt_is_not_rendered(served: Served) -> None:
    """The chat template is a conversation's; a prompt that says the same as it gets the same answer."""
    _, client = served
    chat = (await client.post("/v1/chat/completions", json=chat_body("tiny-llama", "hello"))).json()
    body = {"model": "tiny-llama", "prompt": "user> hello\nassistant> ", "temperature": 0, "max_tokens": 24}
    plain = (await client.post("/v1/completions", json=body)).json()
    assert plain["choices"][0]["text"] == chat["choices"][0]["message"]["content"]
