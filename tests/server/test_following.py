"""Two servers on one store: what is done through one holds on the other, memory, pins and KV included."""

import asyncio
import errno
import fcntl
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest

from adapters.store import AdapterStore
from server.config import Settings
from tests.adapters.making import adapter_files
from tests.server.building import (
    Running,
    app_client,
    chat_body,
    multipart,
    soft_prompt_files,
    tiny_settings,
    wait_until_async,
)
from tests.tiny import HIDDEN_SIZE

ADAPTERS = "/v1/adapters"
Server = tuple[Running, httpx.AsyncClient]


@pytest.fixture
async def servers(settings: Settings) -> AsyncGenerator[tuple[Server, Server]]:
    async with app_client(settings) as first, app_client(settings) as second:
        yield first, second


async def upload(client: httpx.AsyncClient, name: str, seed: int) -> str:
    response = await client.post(ADAPTERS, data={"name": name}, files=multipart(soft_prompt_files(seed)))
    assert response.status_code == 201, response.text
    digest: str = response.json()["digest"]
    return digest


async def answered_by(client: httpx.AsyncClient, model: str, **fields: str) -> str:
    """The digest that answers, or the status of a refusal."""
    response = await client.post("/v1/chat/completions", json=chat_body(model, max_tokens=1, **fields))
    return response.headers["x-hotprompt-adapter"] if response.status_code == 200 else str(response.status_code)


async def test_what_one_server_changes_the_other_answers_with(servers: tuple[Server, Server]) -> None:
    (_, one), (_, other) = servers
    assert await answered_by(other, "team") == "404"
    first = await upload(one, "team", 1)
    assert await answered_by(other, "team") == f"team@{first}"
    second = await upload(one, "team", 2)
    assert await answered_by(other, "team") == f"team@{second}"
    await one.patch(f"{ADAPTERS}/team", json={"rollback": True, "alias": "prod"})
    assert await answered_by(other, "prod") == f"team@{first}"
    await one.patch(f"{ADAPTERS}/team", json={"canary": {"digest": second, "percent": 99}})
    users = [f"user-{number}" for number in range(30)]
    assert [await answered_by(one, "team", user=user) for user in users] == [
        await answered_by(other, "team", user=user) for user in users
    ]
    await other.delete(f"{ADAPTERS}/prod")
    await other.delete(f"{ADAPTERS}/team")
    assert await answered_by(one, "team") == "404"


async def test_memory_and_virtual_tokens_follow(servers: tuple[Server, Server]) -> None:
    (_, one), (other, _) = servers
    digest = await upload(one, "team", 1)
    registry = other.services.registry
    await wait_until_async(lambda: registry.is_resident(digest))
    await wait_until_async(lambda: other.engine.stats().num_virtual_tokens_computed == 5)
    await one.delete(f"{ADAPTERS}/team")
    await wait_until_async(lambda: registry.num_bytes == 0)


async def test_pins_follow_into_the_cache_and_out_of_it(servers: tuple[Server, Server]) -> None:
    (_, one), (other, _) = servers
    digest = await upload(one, "team", 1)
    registry, engine = other.services.registry, other.engine
    await one.patch(f"{ADAPTERS}/team", json={"pinned": True})
    await wait_until_async(lambda: registry.pinned_digests() == {digest} and engine.stats().num_pinned_blocks > 0)
    newer = await upload(one, "team", 2)
    await wait_until_async(lambda: registry.pinned_digests() == {newer})
    await one.patch(f"{ADAPTERS}/team", json={"pinned": False})
    await wait_until_async(lambda: registry.pinned_digests() == set() and engine.stats().num_pinned_blocks == 0)
    await one.patch(f"{ADAPTERS}/team", json={"pinned": True})
    await wait_until_async(lambda: engine.stats().num_pinned_blocks > 0)
    await one.delete(f"{ADAPTERS}/team")
    await wait_until_async(lambda: registry.num_bytes == 0 and engine.stats().num_pinned_blocks == 0)


async def test_a_busy_server_computes_pinned_tokens_when_it_can(settings: Settings) -> None:
    busy = settings.model_copy(update={"max_num_seqs": 1, "max_num_waiting": 1})
    async with app_client(settings) as (_, one), app_client(busy) as (other, client):
        body = chat_body("tiny-llama", ignore_eos=True, max_tokens=450)
        requests = [asyncio.create_task(client.post("/v1/chat/completions", json=body)) for _ in range(2)]
        await wait_until_async(lambda: other.engine.stats().num_running + other.engine.stats().num_waiting == 2)
        digest = await upload(one, "team", 1)
        await one.patch(f"{ADAPTERS}/team", json={"pinned": True})
        await wait_until_async(lambda: other.services.registry.pinned_digests() == {digest})
        assert other.engine.stats().num_pinned_blocks == 0, "the requests were too short"
        assert [answer.status_code for answer in await asyncio.gather(*requests)] == [200, 200]
        await wait_until_async(lambda: other.engine.stats().num_pinned_blocks > 0)


async def test_a_server_that_may_only_read_the_store_serves_it_and_refuses_changes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = AdapterStore(settings.store).publish("team", soft_prompt_files(1)).manifest.digest

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    async with app_client(settings) as (_, client):
        assert await answered_by(client, "team") == f"team@{digest}"
        refusals = [
            await client.post(ADAPTERS, data={"name": "new"}, files=multipart(soft_prompt_files(2))),
            await client.patch(f"{ADAPTERS}/team", json={"pinned": True}),
            await client.post(f"{ADAPTERS}/team/verify"),
            await client.delete(f"{ADAPTERS}/team"),
        ]
        for refusal in refusals:
            assert (refusal.status_code, refusal.json()["error"]["code"]) == (403, "store_read_only")
            assert "may only be read here (Read-only file system)" in refusal.json()["error"]["message"]
        assert await answered_by(client, "team") == f"team@{digest}"
        assert (await client.get(f"{ADAPTERS}/team")).json()["pinned"] is False


async def test_an_adapter_for_another_base_is_left_to_other_servers(tiny_base: Path, tmp_path: Path) -> None:
    async with app_client(tiny_settings(tiny_base, tmp_path / "store")) as (running, client):
        store = AdapterStore(tmp_path / "store")
        store.publish("foreign", adapter_files(width=HIDDEN_SIZE // 2))
        digest = store.publish("team", soft_prompt_files(1)).manifest.digest
        await wait_until_async(lambda: running.services.registry.is_resident(digest))
        assert await answered_by(client, "team") == f"team@{digest}"
        assert await answered_by(client, "foreign") == "400"
