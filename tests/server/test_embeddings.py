"""/v1/embeddings: the mean of the last hidden states, as OpenAI's clients ask for it."""

import asyncio
import base64
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from openai import AsyncOpenAI

from adapters.weights import read_adapter
from server.text.embeddings import MAX_AT_ONCE
from tests.server.building import (
    Running,
    app_client,
    chat_body,
    multipart,
    soft_prompt_files,
    tiny_settings,
    wait_until_async,
)
from tests.server.conftest import Served
from tests.tiny import HIDDEN_SIZE, rows_of, tiny_model, tiny_tokenizer

TEXTS = ["hello", "héllo 世界", "a", "a rather longer text " * 20, "hello"]


def _expected(text: str, soft_prompt: torch.Tensor | None = None) -> NDArray[np.float32]:
    model = tiny_model("llama")
    with torch.inference_mode():
        embedded = model.get_input_embeddings()(torch.tensor([tiny_tokenizer()(text)["input_ids"]]))
        first = 0 if soft_prompt is None else len(soft_prompt)
        if soft_prompt is not None:
            embedded = torch.cat([soft_prompt[None], embedded], dim=1)
        mean = model.base_model(inputs_embeds=embedded).last_hidden_state[0, first:].mean(dim=0)
        scaled: NDArray[np.float32] = (mean / mean.norm()).numpy()
    return scaled


async def _embed(client: httpx.AsyncClient, asked: Any, **fields: Any) -> Any:
    response = await client.post("/v1/embeddings", json={"model": "tiny-llama", "input": asked, **fields})
    assert response.status_code == 200, response.text
    return response.json()


async def _refusal(client: httpx.AsyncClient, asked: Any, **fields: Any) -> tuple[int, str | None, str]:
    response = await client.post("/v1/embeddings", json={"model": "tiny-llama", "input": asked, **fields})
    error = response.json()["error"]
    return response.status_code, error["param"], error["code"]


def _vectors(answer: Any) -> NDArray[np.float32]:
    assert [entry["index"] for entry in answer["data"]] == list(range(len(answer["data"])))
    return np.array([entry["embedding"] for entry in answer["data"]], dtype=np.float32)


async def test_the_openai_client_asks_as_it_likes(live: Running) -> None:
    async with AsyncOpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as client:
        many = await client.embeddings.create(model="tiny-llama", input=TEXTS)
        for entry, text in zip(many.data, TEXTS, strict=True):
            np.testing.assert_allclose(entry.embedding, _expected(text), atol=1e-5)
        assert many.usage.prompt_tokens == many.usage.total_tokens == sum(len(text.encode()) for text in TEXTS)
        plain = await client.embeddings.create(model="tiny-llama", input=TEXTS[1], encoding_format="float")
        np.testing.assert_allclose(many.data[1].embedding, plain.data[0].embedding, atol=1e-6)
        token_ids = [tiny_tokenizer()(text)["input_ids"] for text in TEXTS]
        for asked in (token_ids, token_ids[0]):
            by_ids = await client.embeddings.create(model="tiny-llama", input=asked, user="somebody")
            np.testing.assert_allclose(by_ids.data[0].embedding, many.data[0].embedding, atol=1e-6)
        short = await client.embeddings.create(model="tiny-llama", input=TEXTS, dimensions=10)
        for entry, text in zip(short.data, TEXTS, strict=True):
            expected = _expected(text)[:10]
            np.testing.assert_allclose(entry.embedding, expected / np.linalg.norm(expected), atol=1e-5)


async def test_an_adapters_virtual_tokens_stand_before_the_text(served: Served) -> None:
    _, client = served
    files = soft_prompt_files(3, num_virtual_tokens=20)
    assert (await client.post("/v1/adapters", data={"name": "team"}, files=multipart(files))).status_code == 201
    soft_prompt = rows_of(read_adapter("team", files))
    answer = await _embed(client, TEXTS, model="team")
    for vector, text in zip(_vectors(answer), TEXTS, strict=True):
        np.testing.assert_allclose(vector, _expected(text, soft_prompt), atol=1e-5)
    base = await _embed(client, TEXTS)
    assert answer["usage"] == base["usage"]
    assert np.abs(_vectors(base) - _vectors(answer)).max() > 0.01


async def test_base64_is_little_endian_float32(served: Served) -> None:
    _, client = served
    plain, coded = await _embed(client, TEXTS), await _embed(client, TEXTS, encoding_format="base64")
    for vector, entry in zip(_vectors(plain), coded["data"], strict=True):
        np.testing.assert_allclose(np.frombuffer(base64.b64decode(entry["embedding"]), dtype="<f4"), vector, atol=1e-6)
    assert (coded["object"], coded["data"][0]["object"], coded["model"]) == ("list", "embedding", "tiny-llama")
    np.testing.assert_allclose(np.linalg.norm(_vectors(plain), axis=1), 1, atol=1e-6)


async def test_many_texts_at_once_beside_chats(served: Served) -> None:
    _, client = served
    texts = [f"text {number} " * (number % 17 + 1) for number in range(3 * MAX_AT_ONCE)]
    chats = [client.post("/v1/chat/completions", json=chat_body("tiny-llama", f"chat {i}")) for i in range(8)]
    answer, *answers = await asyncio.gather(_embed(client, texts), *chats)
    assert [response.status_code for response in answers] == [200] * 8
    for vector, text in zip(_vectors(answer), texts, strict=True):
        np.testing.assert_allclose(vector, _expected(text), atol=1e-5)


async def test_a_client_that_hangs_up_ends_the_work(live: Running) -> None:
    async with httpx.AsyncClient(base_url=live.url) as client:
        body = {"model": "tiny-llama", "input": ["word " * 190] * 300}
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/v1/embeddings", json=body, timeout=0.5)
    await wait_until_async(lambda: live.engine.stats().num_running + live.engine.stats().num_waiting == 0)
    stats = live.engine.stats()
    assert stats.num_accepted < 300
    assert stats.num_free_blocks == stats.num_blocks


async def test_a_full_server_refuses_before_it_reads(tiny_base: Any, tmp_path: Any) -> None:
    async with app_client(tiny_settings(tiny_base, tmp_path, max_num_seqs=4, max_num_waiting=1)) as (running, client):
        assert len((await _embed(client, TEXTS))["data"]) == len(TEXTS)
        with running.engine.place(2):
            assert await _refusal(client, TEXTS) == (503, None, "engine_overloaded")
            assert len((await _embed(client, TEXTS[:3]))["data"]) == 3


@pytest.mark.parametrize(
    ("asked", "fields", "param", "code"),
    [
        ("", {}, "input.0", "invalid_value"),
        ([], {}, "input", "invalid_value"),
        (["a", ""], {}, "input.1", "invalid_value"),
        ([[]], {}, "input.0", "invalid_value"),
        ([[1], []], {}, "input.1", "invalid_value"),
        ({}, {}, "input", "invalid_value"),
        (None, {}, "input", "invalid_value"),
        ([1, "a"], {}, "input.0.1", "invalid_value"),
        ([1.5], {}, "input.0.0", "invalid_value"),
        ([-1], {}, "input.0.0", "invalid_value"),
        (["a"] * 2049, {}, "input", "invalid_value"),
        ([300], {}, "input", "prompt_invalid"),
        ([1] * 1025, {}, "input", "context_length_exceeded"),
        (["a" * 1025], {}, "input", "context_length_exceeded"),
        ([[1] * 1000] * 301, {}, "input", "context_length_exceeded"),
        ("a", {"dimensions": HIDDEN_SIZE + 1}, "dimensions", "invalid_value"),
        ("a", {"dimensions": 0}, "dimensions", "invalid_value"),
        ("a", {"encoding_format": "hex"}, "encoding_format", "invalid_value"),
        ("a", {"user": "a" * 257}, "user", "invalid_value"),
        ("a", {"nonsense": 1}, "nonsense", "invalid_value"),
    ],
)
async def test_what_is_wrong_is_named(
    served: Served, asked: Any, fields: dict[str, Any], param: str, code: str
) -> None:
    running, client = served
    assert await _refusal(client, asked, **fields) == (400, param, code)
    assert running.engine.stats().num_running == 0


async def test_an_unknown_model_is_no_base(served: Served) -> None:
    _, client = served
    assert await _refusal(client, "a", model="nobody") == (404, "model", "model_not_found")
