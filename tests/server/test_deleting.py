"""What deleting an adapter says, and that everything of it is freed: memory, pins, blocks of the KV cache."""

import asyncio
import gc
import weakref
from typing import Any

import httpx
import pytest
import torch

from server.engine.engine import Engine
from tests.server.building import Running, chat_body, multipart, soft_prompt_files, wait_until_async
from tests.tiny import rows_of


async def upload(client: httpx.AsyncClient, name: str, seed: int) -> None:
    response = await client.post("/v1/adapters", data={"name": name}, files=multipart(soft_prompt_files(seed)))
    assert response.status_code == 201, response.text


async def checked(running: Running) -> None:
    """Nothing runs, every block is free, and the books agree."""
    engine: Engine = running.engine._engine
    await wait_until_async(lambda: not engine.has_work and engine.stats().num_pinned_blocks == 0)
    stats = engine.stats()
    assert stats.num_free_blocks == stats.num_blocks
    engine.check_integrity()


def held(running: Running, name: str) -> "weakref.ref[torch.Tensor]":
    return weakref.ref(rows_of(running.services.registry.get(name)))


async def is_freed(rows: "weakref.ref[torch.Tensor]") -> bool:
    await asyncio.sleep(0)
    gc.collect()
    return rows() is None


@pytest.mark.parametrize("path", ["/v1/adapters", "/v1/models"])
async def test_deleting_what_runs_and_is_pinned_drains_and_frees(live: Running, path: str) -> None:
    registry = live.services.registry
    async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
        await upload(client, "team", 1)
        assert (await client.patch("/v1/adapters/team", json={"pinned": True})).status_code == 200
        rows = held(live, "team")
        assert registry.num_bytes == rows_of(registry.get("team")).nbytes
        body = chat_body("team", ignore_eos=True, max_tokens=600)
        alone = await client.post("/v1/chat/completions", json=body)
        running = [asyncio.create_task(client.post("/v1/chat/completions", json=body)) for _ in range(2)]
        await wait_until_async(lambda: live.app.state.parts.use.running("team").total() == 2)
        told: dict[str, Any] = (await client.delete(f"{path}/team")).json()
        assert (told["deleted"], told["running"], told["was_pinned"]) == (True, 2, True)
        assert registry.num_bytes == 0
        assert registry.pinned_digests() == set()
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 404
        for answer in await asyncio.gather(*running):
            assert answer.json()["choices"] == alone.json()["choices"]
        await checked(live)
        assert await is_freed(rows)


async def test_a_hundred_adapters_come_and_go_and_leave_nothing(live: Running) -> None:
    registry = live.services.registry
    async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
        for seed in range(100):
            name = f"team-{seed % 3}"
            await upload(client, name, seed)
            if seed % 2:
                await client.patch(f"/v1/adapters/{name}", json={"pinned": True})
            rows = held(live, name)
            await client.post("/v1/chat/completions", json=chat_body(name, max_tokens=4))
            assert (await client.delete(f"/v1/adapters/{name}")).json()["was_pinned"] is bool(seed % 2)
            assert registry.num_bytes == 0
            if seed % 20 == 0:
                await wait_until_async(lambda: not live.engine._engine.has_work)
                assert await is_freed(rows)
        await checked(live)
        assert registry.store.names() == []
        assert list(registry.store.path_of("x").parent.iterdir()) == []
        assert live.app.state.parts.use._by_name == live.app.state.parts.use._running == {}


async def test_an_alias_has_no_pin_and_nothing_running(live: Running) -> None:
    async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
        await upload(client, "team", 1)
        await client.patch("/v1/adapters/team", json={"pinned": True, "alias": "prod"})
        told = (await client.delete("/v1/adapters/prod")).json()
        assert (told["running"], told["was_pinned"]) == (0, False)
        assert (await client.get("/v1/adapters/team")).json()["pinned"] is True
