"""What /metrics tells: names and types as promised, counts that agree with the answers, few labels, a true ledger."""

import asyncio
import random
from typing import Any

import httpx
from pydantic import SecretStr

from server.config import Settings
from tests.server.building import (
    Running,
    app_client,
    chat_body,
    live_server,
    multipart,
    soft_prompt_files,
    wait_until_async,
)
from tests.server.conftest import Served
from tests.server.telemetry.scraping import Scrape, scrape

TYPES = {
    "hotprompt_num_requests_running": "gauge",
    "hotprompt_num_requests_waiting": "gauge",
    "hotprompt_kv_cache_usage_perc": "gauge",
    "hotprompt_kv_cache_pinned_perc": "gauge",
    "hotprompt_num_preemptions": "counter",
    "hotprompt_prefix_cache_queries": "counter",
    "hotprompt_prefix_cache_hits": "counter",
    "hotprompt_virtual_tokens_computed": "counter",
    "hotprompt_engine_up": "gauge",
    "hotprompt_engine_step_seconds": "gauge",
    "hotprompt_engine_restarts": "counter",
    "hotprompt_draining": "gauge",
    "hotprompt_lora_requests_info": "gauge",
    "hotprompt_cache_config_info": "gauge",
    "hotprompt_build_info": "gauge",
    "hotprompt_requests_accepted": "counter",
    "hotprompt_requests_finished": "counter",
    "hotprompt_requests_failed": "counter",
    "hotprompt_requests_cancelled": "counter",
    "hotprompt_requests_in_flight": "gauge",
    "hotprompt_prompt_tokens": "counter",
    "hotprompt_generation_tokens": "counter",
    "hotprompt_request_success": "counter",
    "hotprompt_time_to_first_token_seconds": "histogram",
    "hotprompt_inter_token_latency_seconds": "histogram",
    "hotprompt_e2e_request_latency_seconds": "histogram",
    "hotprompt_request_queue_time_seconds": "histogram",
    "hotprompt_resident_adapters": "gauge",
    "hotprompt_resident_adapter_bytes": "gauge",
    "hotprompt_resident_adapter_limit_bytes": "gauge",
    "hotprompt_adapter_loads": "counter",
    "hotprompt_adapter_evictions": "counter",
    "hotprompt_adapter_requests": "counter",
    "hotprompt_adapter_prompt_tokens": "counter",
    "hotprompt_adapter_generated_tokens": "counter",
    "hotprompt_http_requests": "counter",
}
INFO = "hotprompt_lora_requests_info"


async def upload(client: httpx.AsyncClient, name: str, seed: int = 1, **headers: str) -> None:
    files = multipart(soft_prompt_files(seed))
    response = await client.post("/v1/adapters", data={"name": name}, files=files, headers=headers)
    assert response.status_code == 201, response.text


async def test_names_and_types_are_those_that_are_promised(served: Served) -> None:
    _, client = served
    told = (await scrape(client)).types
    assert {name: kind for name, kind in told.items() if name.startswith("hotprompt_")} == TYPES


async def test_counts_are_those_of_the_answers(served: Served) -> None:
    running, client = served
    await upload(client, "team")
    virtual = (await scrape(client)).value("hotprompt_virtual_tokens_computed_total")
    num_prompt = num_made = 0
    for body in (
        chat_body("team", n=2, ignore_eos=True),
        chat_body("tiny-llama", ignore_eos=True),
        chat_body("tiny-llama", ignore_eos=True),
    ):
        answer = await client.post("/v1/chat/completions", json=body)
        num_prompt += answer.json()["usage"]["prompt_tokens"]
        num_made += answer.json()["usage"]["completion_tokens"]
    now = await scrape(client)
    now.check_ledger()
    assert now.value("hotprompt_requests_finished_total") == 3
    assert now.value("hotprompt_prompt_tokens_total") == num_prompt
    assert now.value("hotprompt_generation_tokens_total") == num_made
    assert now.value("hotprompt_request_success_total", finished_reason="length") == 4
    for name in ("time_to_first_token", "e2e_request_latency", "request_queue_time"):
        assert now.value(f"hotprompt_{name}_seconds_count") == 4
    assert 0 < now.value("hotprompt_inter_token_latency_seconds_count") <= num_made - 4
    assert now.value("hotprompt_prefix_cache_queries_total") > now.value("hotprompt_prefix_cache_hits_total") > 0
    assert now.value("hotprompt_virtual_tokens_computed_total") == virtual == 5
    assert now.value("hotprompt_resident_adapters") == 1
    assert now.value("hotprompt_resident_adapter_bytes") == running.services.registry.num_bytes
    assert now.value("hotprompt_engine_up") == 1


async def test_what_leaves_memory_and_comes_again_is_counted(settings: Settings) -> None:
    async with app_client(settings.model_copy(update={"adapter_memory": 2000})) as (_, client):  # for one of them
        for seed, name in enumerate(("a", "b"), start=1):
            await upload(client, name, seed)
        await client.post("/v1/chat/completions", json=chat_body("a", max_tokens=1))
        now = await scrape(client)
        assert now.value("hotprompt_adapter_evictions_total") == 2
        assert now.value("hotprompt_adapter_loads_total") == 1
        assert now.value("hotprompt_resident_adapter_limit_bytes") == 2000


async def test_clients_cannot_make_labels(served: Served) -> None:
    _, client = served
    for path in ("/v1/models/some-name", "/v1/adapters/%0Aevil", "/nope", "/nope/more", "/v1/models/x/y?z=1"):
        await client.request("GET", path)
        await client.request("FROB", path)
        await client.request("DELETE", path)
    now = await scrape(client)
    labels = now.labels("hotprompt_http_requests_total")
    assert {label["method"] for label in labels} == {"GET", "DELETE", "other"}
    assert {label["route"] for label in labels} <= {"unmatched", "/v1/models/{model:path}", "/v1/adapters/{name}"}
    assert {label["status"] for label in labels} == {"4xx"}


async def test_routers_see_which_adapters_run_and_wait(settings: Settings) -> None:
    with live_server(settings.model_copy(update={"max_num_seqs": 1})) as (running, _):
        async with httpx.AsyncClient(base_url=running.url, timeout=60) as client:
            await upload(client, "one", 1)
            await upload(client, "two", 2)
            asked = [
                asyncio.create_task(client.post("/v1/chat/completions", json=long_body(name)))
                for name in ("one", "two")
            ]
            await wait_until_async(lambda: running.engine.stats().num_waiting == 1)
            [labels] = (await scrape(client)).labels(INFO)
            assert {labels["running_lora_adapters"], labels["waiting_lora_adapters"]} == {"one", "two"}
            assert labels["max_lora"] == "1"
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            await wait_until_async(lambda: not running.app.state.parts.use.in_flight())
            [labels] = (await scrape(client)).labels(INFO)
            assert (labels["running_lora_adapters"], labels["waiting_lora_adapters"]) == ("", "")


def long_body(model: str, **fields: Any) -> dict[str, Any]:
    return chat_body(model, ignore_eos=True, max_tokens=900, **fields)


async def test_a_key_for_some_models_is_told_of_no_other_adapter(settings: Settings) -> None:
    path = settings.store.parent / "keys.yaml"
    path.write_text("keys:\n  - {name: a, key: sk-team-a, models: [team-a]}\n  - {name: all, key: sk-everything}\n")
    keyed = settings.model_copy(update={"key_file": path, "admin_keys": (SecretStr("sk-admin"),)})
    with live_server(keyed) as (running, _):
        async with httpx.AsyncClient(base_url=running.url, timeout=60) as client:
            admin = {"authorization": "Bearer sk-admin"}
            await upload(client, "team-a", 1, **admin)
            await upload(client, "team-b", 2, **admin)
            body = long_body("team-b")
            asked = asyncio.create_task(client.post("/v1/chat/completions", json=body, headers=admin))
            await wait_until_async(lambda: running.engine.stats().num_running == 1)
            told = await client.get("/metrics", headers={"authorization": "Bearer sk-team-a"})
            assert "team-b" not in told.text
            all_told = await scrape(client, authorization="Bearer sk-everything")
            assert all_told.labels(INFO)[0]["running_lora_adapters"] == "team-b"
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)


async def test_the_ledger_balances_at_every_scrape(live: Running) -> None:
    """A mix of answers, streams, refusals, errors and clients that hang up, scraped all the while."""
    chance = random.Random(7)
    async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
        await upload(client, "team")
        asked = [asyncio.create_task(ask_somehow(client, chance)) for _ in range(60)]
        scrapes: list[Scrape] = []
        while not all(task.done() for task in asked):
            scrapes.append(await scrape(client))
            scrapes[-1].check_ledger()
        await asyncio.gather(*asked)
        await wait_until_async(lambda: not live.app.state.parts.use.in_flight())
        end = await scrape(client)
        end.check_ledger()
        assert end.value("hotprompt_requests_in_flight") == 0
        assert len(scrapes) > 3
        for ending in ("finished", "failed", "cancelled"):
            assert end.value(f"hotprompt_requests_{ending}_total") > 0, ending
        stats = live.engine.stats()
        assert stats.num_accepted == stats.num_finished + stats.num_failed + stats.num_aborted


async def ask_somehow(client: httpx.AsyncClient, chance: random.Random) -> None:
    await asyncio.sleep(chance.random() * 0.5)
    model = chance.choice(("team", "tiny-llama", "nobody"))
    way = chance.choice(("whole", "stream", "hang up", "refused", "late", "embed", "many"))
    if way == "whole":
        await client.post("/v1/chat/completions", json=chat_body(model, n=chance.choice((1, 3))))
    elif way == "stream":
        await client.post("/v1/responses", json={"model": model, "input": "hi", "stream": True, "max_output_tokens": 5})
    elif way == "hang up":
        await hang_up(client, long_body(model, stream=chance.random() < 0.5))
    elif way == "refused":
        await client.post("/v1/chat/completions", json=chat_body(model, "x" * 2000))
    elif way == "late":  # only the engine finds this
        body = {"model": "tiny-llama", "prompt": [100_000], "max_tokens": 2}
        assert (await client.post("/v1/completions", json=body)).status_code == 400
    elif way == "embed":
        await client.post("/v1/embeddings", json={"model": model, "input": ["one", "two"]})
    else:
        await client.post("/v1/completions", json={"model": model, "prompt": ["a", "bc"], "n": 2, "max_tokens": 4})


async def hang_up(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    task = asyncio.create_task(client.post("/v1/chat/completions", json=body))
    await asyncio.sleep(0.15)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
