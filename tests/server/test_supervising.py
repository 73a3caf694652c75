"""The engine's thread dies in a server: everyone hears of it, it is started anew, and not for ever."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from server.config import Settings
from server.supervising import EngineSupervisor, RestartLimit
from tests.engine.faults import FaultyRunner
from tests.server.building import (
    WAIT_SECONDS,
    Running,
    chat_body,
    events_of,
    live_server,
    multipart,
    soft_prompt_files,
    wait_until_async,
)

Faulty = tuple[Running, FaultyRunner, httpx.AsyncClient]


@pytest.fixture
async def faulty(settings: Settings) -> AsyncGenerator[Faulty]:
    with live_server(settings) as (running, _):
        inner = running.engine._engine
        inner._runner = runner = FaultyRunner(inner._runner)
        async with httpx.AsyncClient(base_url=running.url, timeout=WAIT_SECONDS) as client:
            try:
                yield running, runner, client
            finally:
                runner.gate.set()


async def _chat(client: httpx.AsyncClient, model: str, **fields: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=chat_body(model, **fields))


async def test_every_stream_hears_that_the_engine_died_and_it_comes_back_as_it_was(faulty: Faulty) -> None:
    running, runner, client = faulty
    uploaded = await client.post("/v1/adapters", data={"name": "pet"}, files=multipart(soft_prompt_files(1)))
    assert uploaded.status_code == 201
    assert (await client.patch("/v1/adapters/pet", json={"pinned": True})).status_code == 200
    before = [(await _chat(client, model)).json()["choices"] for model in ("tiny-llama", "pet")]
    num_pinned = running.engine.stats().num_pinned_blocks
    assert num_pinned > 0

    endless = {"ignore_eos": True, "max_tokens": 900}
    streams = [asyncio.create_task(_chat(client, name, stream=True, **endless)) for name in ("tiny-llama", "pet") * 4]
    whole = asyncio.create_task(_chat(client, "pet", **endless))
    await wait_until_async(lambda: running.engine.stats().num_running == 9)
    runner.holds = True  # the pinned adapter's KV has to wait until it is computed again
    runner.num_faults = 1
    for stream in await asyncio.gather(*streams):
        assert events_of(stream.text)[-1]["error"]["code"] == "engine_dead"
    assert ((await whole).status_code, (await whole).json()["error"]["code"]) == (500, "engine_dead")

    await wait_until_async(lambda: running.engine.is_alive)
    for path in ("/health", "/ready"):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["status"]) == (503, "restarting")
        assert "(KeyError)" in answer.json()["reason"]
    runner.gate.set()
    supervisor: EngineSupervisor = running.app.state.parts.supervisor
    await wait_until_async(lambda: supervisor.num_restarts == 1)
    for path in ("/health", "/ready"):
        assert (await client.get(path)).json() == {"status": "ok", "reason": None}
    assert "hotprompt_engine_restarts_total 1.0" in (await client.get("/metrics")).text.splitlines()
    stats = running.engine.stats()
    assert stats.num_pinned_blocks == num_pinned
    assert stats.num_failed == 9
    assert stats.num_accepted == stats.num_finished + stats.num_failed + stats.num_aborted
    assert [(await _chat(client, model)).json()["choices"] for model in ("tiny-llama", "pet")] == before


async def test_an_engine_that_keeps_failing_stays_down(faulty: Faulty) -> None:
    running, runner, client = faulty
    supervisor: EngineSupervisor = running.app.state.parts.supervisor
    runner.num_faults = RestartLimit().count + 1
    for num_restarts in range(RestartLimit().count + 1):
        await wait_until_async(lambda done=num_restarts: supervisor.num_restarts == done)
        await wait_until_async(lambda: supervisor.is_up)
        assert (await _chat(client, "tiny-llama")).json()["error"]["code"] == "engine_dead"
    await wait_until_async(lambda: supervisor.has_given_up)
    answer = await client.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "dead")
    assert "must be restarted" in answer.json()["reason"]
    refused = await _chat(client, "tiny-llama")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_down")
    assert refused.headers["retry-after"]


async def test_a_step_that_hangs_is_seen(faulty: Faulty) -> None:
    running, runner, client = faulty
    supervisor: EngineSupervisor = running.app.state.parts.supervisor
    supervisor._stall_seconds = 0.05
    assert (await client.get("/health")).status_code == 200
    runner.gate.clear()
    waiting = asyncio.create_task(_chat(client, "tiny-llama"))
    await wait_until_async(lambda: supervisor.is_stalled)
    for path in ("/health", "/ready"):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["status"]) == (503, "stalled")
        assert "not finished a step" in answer.json()["reason"]
    page = (await client.get("/metrics")).text.splitlines()
    (told,) = [line for line in page if line.startswith("hotprompt_engine_step_seconds ")]
    assert float(told.split()[1]) > 0.05
    supervisor._stall_seconds = 60.0
    runner.gate.set()
    assert (await waiting).status_code == 200
    assert (await client.get("/health")).json() == {"status": "ok", "reason": None}


async def test_restarts_are_counted_within_the_window_only(settings: Settings) -> None:
    now = 0.0
    with live_server(settings) as (running, _):
        supervisor = EngineSupervisor(running.engine, RestartLimit(count=2, seconds=10), clock=lambda: now)
        assert [supervisor._may_restart() for _ in range(3)] == [True, True, False]
        now = 10.0
        assert supervisor._may_restart()
