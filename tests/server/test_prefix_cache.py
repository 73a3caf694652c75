"""The prefix cache as clients see it: cached_tokens of conversations and system prompts, and who shares with whom."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from server.engine.sampling_params import SamplingParams
from tests.server.building import Running, app_client, chat_body, events_of, multipart, soft_prompt_files, tiny_settings
from tests.server.conftest import Served

CHAT = "/v1/chat/completions"
BLOCK = 16


@pytest.fixture
async def keyed(tiny_base: Path, tmp_path: Path) -> AsyncGenerator[Served]:
    keys = tuple(SecretStr(key) for key in ("ann", "bob"))
    async with app_client(tiny_settings(tiny_base, tmp_path / "store", api_keys=keys)) as started:
        yield started


async def ask(client: httpx.AsyncClient, messages: list[dict[str, str]], **fields: Any) -> tuple[str, dict[str, Any]]:
    """Text and usage of an answer that does not end by itself."""
    headers = {"authorization": f"Bearer {fields.pop('key')}"} if "key" in fields else {}
    body = chat_body(fields.pop("model", "tiny-llama"), ignore_eos=True) | {"messages": messages} | fields
    answer = await client.post(CHAT, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    usage: dict[str, Any] = answer.json()["usage"]
    return answer.json()["choices"][0]["message"]["content"], usage


def cached(usage: dict[str, Any]) -> int:
    number: int = usage["prompt_tokens_details"]["cached_tokens"]
    return number


def whole_blocks(num_tokens: int) -> int:
    return num_tokens // BLOCK * BLOCK


@pytest.mark.parametrize("num_virtual_tokens", [0, 5, 16, 20])
async def test_each_turn_finds_the_turns_before_it(served: Served, num_virtual_tokens: int) -> None:
    """What is cached: all whole blocks of virtual tokens, prompt and answer, but the answer's last token."""
    running, client = served
    model = "tiny-llama"
    if num_virtual_tokens:
        running.services.registry.publish("team", soft_prompt_files(1, num_virtual_tokens=num_virtual_tokens))
        model = "team"
    messages = [{"role": "system", "content": "Be brief and kind."}]
    known = 0
    for turn in range(4):
        messages.append({"role": "user", "content": f"question {turn}"})
        text, usage = await ask(client, messages, model=model, max_tokens=24)
        rendered = "".join(f"{message['role']}> {message['content']}\n" for message in messages) + "assistant> "
        assert usage["prompt_tokens"] == len(rendered.encode())  # one token a byte, and no virtual ones
        if turn:
            assert cached(usage) == known
        # The tiny model's answers are bytes that need not be text: what cannot be decoded comes back as other bytes.
        computed = len(rendered.encode()) + min(23, len(text.partition("�")[0].encode()))
        known = whole_blocks(num_virtual_tokens + computed) - num_virtual_tokens
        messages.append({"role": "assistant", "content": text})


async def test_a_system_prompt_is_shared_by_requests_and_streams(served: Served) -> None:
    _, client = served
    system = {"role": "system", "content": "You know all about tides and little else, and you say so. " * 3}
    _, first = await ask(client, [system, {"role": "user", "content": "aaa"}])
    _, second = await ask(client, [system, {"role": "user", "content": "bbb"}])
    shared = whole_blocks(len(f"system> {system['content']}\nuser> "))
    assert (cached(first), cached(second)) == (0, shared)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    body = chat_body("tiny-llama") | {"messages": [system, {"role": "user", "content": "ccc"}]} | options
    events = events_of((await client.post(CHAT, json=body)).text)
    assert cached(events[-2]["usage"]) == shared


async def test_one_key_finds_nothing_of_anothers_prompt(keyed: Served) -> None:
    _, client = keyed
    messages = [{"role": "user", "content": "a secret that is longer than a block of tokens"}]
    counts = [cached((await ask(client, messages, key=key))[1]) for key in ("ann", "bob", "ann", "bob")]
    known = whole_blocks(len(f"user> {messages[0]['content']}\nassistant> ") - 1)  # the last token is always computed
    assert counts == [0, 0, known, known]


async def test_all_keys_share_an_adapters_virtual_tokens(keyed: Served) -> None:
    running, client = keyed
    running.services.registry.publish("team", soft_prompt_files(1, num_virtual_tokens=20))
    for key in ("ann", "bob"):
        await ask(client, [{"role": "user", "content": "hello"}], model="team", key=key)
        assert running.engine.stats().num_virtual_tokens_computed == 20


async def test_requests_without_keys_are_one_tenant_whatever_they_send(served: Served) -> None:
    _, client = served
    messages = [{"role": "user", "content": "a question that is longer than a block"}]
    await ask(client, messages)
    assert cached((await ask(client, messages, key="anything"))[1]) > 0


async def test_a_conversation_is_found_after_others_came_between(served: Served) -> None:
    running, client = served
    messages = [{"role": "user", "content": "the first question of a conversation"}]
    text, _ = await ask(client, messages)
    for number in range(20):
        await ask(client, [{"role": "user", "content": f"{number} is somebody else's question"}])
    _free_of(running)
    messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "and then?"}]
    assert cached((await ask(client, messages))[1]) >= 48


def _free_of(running: Running) -> None:
    """Nothing runs: what is found now was left in free blocks."""
    stats = running.engine.stats()
    assert stats.num_free_blocks == stats.num_blocks


async def test_a_pin_holds_the_virtual_tokens_of_the_current_version(served: Served) -> None:
    running, client = served
    for seed, name in ((1, "team"), (2, "other")):
        upload = multipart(soft_prompt_files(seed, num_virtual_tokens=20))
        assert (await client.post("/v1/adapters", data={"name": name}, files=upload)).status_code == 201
    assert await _pinned_blocks(running) == 0
    for name, field, expected in (
        ("team", {"pinned": True}, 2),
        ("team", {"pinned": True}, 2),
        ("other", {"pinned": True}, 4),
        ("other", {"pinned": False}, 2),
    ):
        assert (await client.patch(f"/v1/adapters/{name}", json=field)).status_code == 200
        assert await _pinned_blocks(running) == expected
    longer = multipart(soft_prompt_files(3, num_virtual_tokens=40))
    assert (await client.post("/v1/adapters", data={"name": "team"}, files=longer)).status_code == 201
    assert await _pinned_blocks(running) == 3
    assert (await client.patch("/v1/adapters/team", json={"rollback": True})).status_code == 200
    assert await _pinned_blocks(running) == 2
    assert (await client.patch("/v1/adapters/other", json={"pinned": True, "alias": "team"})).status_code == 409
    assert await _pinned_blocks(running) == 2
    assert (await client.delete("/v1/adapters/team")).status_code == 200
    assert await _pinned_blocks(running) == 0


async def _pinned_blocks(running: Running) -> int:
    """After a request that comes behind whatever the engine was told before."""
    async for _ in running.engine.generate([1], SamplingParams(max_tokens=1)):
        pass
    return running.engine.stats().num_pinned_blocks
