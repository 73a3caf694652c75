"""What is told of adapters' use: counts by name and by label, running requests, and /metrics."""

import asyncio
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from adapters.naming import AdapterReference
from server.config import Settings
from server.text.adapter_use import MAX_LABELS, OTHER, AdapterUse, UseCounts
from tests.server.building import Running, app_client, chat_body, multipart, soft_prompt_files, wait_until_async
from tests.server.conftest import Served

DIGEST = "a" * 64


async def upload(client: httpx.AsyncClient, name: str, seed: int = 1) -> str:
    response = await client.post("/v1/adapters", data={"name": name}, files=multipart(soft_prompt_files(seed)))
    assert response.status_code == 201, response.text
    digest: str = response.json()["digest"]
    return digest


async def shown(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    record: dict[str, Any] = (await client.get(f"/v1/adapters/{name}")).json()
    return record


async def scraped(client: httpx.AsyncClient, **headers: str) -> dict[tuple[str, str], float]:
    """The adapters' counters by name and label."""
    response = await client.get("/metrics", headers=headers)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(response.text))
    samples = [sample for family in families for sample in family.samples if "adapter" in sample.labels]
    return {(sample.name, sample.labels["adapter"]): sample.value for sample in samples}


def use_once(use: AdapterUse, name: str) -> None:
    with use.request(AdapterReference(name, DIGEST)) as tally:
        tally.add(prompt_tokens=3, generated_tokens=2)


def test_names_beyond_the_labels_share_one_and_no_counter_goes_down() -> None:
    use = AdapterUse()
    before: dict[str, UseCounts] = {}
    for number in range(MAX_LABELS + 20):
        name = f"adapter-{number}"
        use_once(use, name)
        if number % 3 == 0:
            use.forget(name)
        use_once(use, f"adapter-{number // 2}")
        after = use.by_label()
        for label, counts in before.items():
            assert after[label].requests >= counts.requests
            assert after[label].generated_tokens >= counts.generated_tokens
        before = after
    assert len(before) == MAX_LABELS + 1
    assert sum(counts.requests for counts in before.values()) == 2 * (MAX_LABELS + 20)
    assert sum(counts.prompt_tokens for counts in before.values()) == 6 * (MAX_LABELS + 20)
    assert before[OTHER].requests == 20
    assert use.of(f"adapter-{MAX_LABELS + 19}").requests == 1


def test_an_adapter_that_is_called_other_is_among_the_others() -> None:
    use = AdapterUse()
    use_once(use, OTHER)
    use_once(use, "a")
    assert {label: counts.requests for label, counts in use.by_label().items()} == {OTHER: 1, "a": 1}
    assert use.of(OTHER).requests == 1


def test_what_runs_is_counted_by_digest_and_outlives_its_name() -> None:
    use = AdapterUse()
    first, second = AdapterReference("a", DIGEST), AdapterReference("a", "b" * 64)
    with use.request(first), use.request(first) as tally, use.request(second), use.request(None):
        assert use.running("a") == {DIGEST: 2, "b" * 64: 1}
        use.forget("a")
        tally.add(prompt_tokens=1, generated_tokens=1)
        assert use.running("a").total() == 3
    assert use.running("a").total() == 0
    assert use.of("a") == UseCounts()
    assert use.by_label()["a"] == UseCounts(requests=3, prompt_tokens=1, generated_tokens=1)


async def test_every_route_counts_its_tokens_once(served: Served) -> None:
    _, client = served
    await upload(client, "team")
    await client.patch("/v1/adapters/team", json={"alias": "prod"})
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/v1/chat/completions", chat_body("team", n=2, ignore_eos=True)),
        ("/v1/chat/completions", chat_body("prod", stream=True, stream_options={"include_usage": True})),
        ("/v1/completions", {"model": "team", "prompt": ["a", "bc"], "max_tokens": 3}),
        ("/v1/responses", {"model": "team", "input": "hello", "max_output_tokens": 4}),
        ("/v1/embeddings", {"model": "team", "input": ["one", "two"]}),
        ("/v1/chat/completions", chat_body("tiny-llama")),
    ]
    num_prompt = num_made = 0
    for path, body in asked:
        answer = await client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        if body["model"] == "tiny-llama":
            continue
        used = _usage_of(answer)
        num_prompt += used.get("prompt_tokens", used.get("input_tokens", 0))
        num_made += used.get("completion_tokens", used.get("output_tokens", 0))
    record = await shown(client, "team")
    assert record["usage"] == {"requests": 5, "prompt_tokens": num_prompt, "completion_tokens": num_made}
    assert record["running"] == 0
    assert await scraped(client) == {
        ("hotprompt_adapter_requests_total", "team"): 5,
        ("hotprompt_adapter_prompt_tokens_total", "team"): num_prompt,
        ("hotprompt_adapter_generated_tokens_total", "team"): num_made,
        ("hotprompt_adapter_requests_total", OTHER): 0,
        ("hotprompt_adapter_prompt_tokens_total", OTHER): 0,
        ("hotprompt_adapter_generated_tokens_total", OTHER): 0,
    }


def _usage_of(answer: httpx.Response) -> dict[str, int]:
    if answer.headers["content-type"].startswith("application/json"):
        whole: dict[str, int] = answer.json()["usage"]
        return whole
    [line] = [line for line in answer.text.splitlines() if '"usage":{' in line]
    streamed: dict[str, int] = httpx.Response(200, text=line.removeprefix("data: ")).json()["usage"]
    return streamed


async def test_metrics_go_on_where_a_name_begins_anew(served: Served) -> None:
    _, client = served
    for round_ in (1, 2):
        await upload(client, "team")
        await client.post("/v1/chat/completions", json=chat_body("team"))
        assert (await shown(client, "team"))["usage"]["requests"] == 1
        assert (await scraped(client))["hotprompt_adapter_requests_total", "team"] == round_
        await client.delete("/v1/adapters/team")


async def test_a_running_request_is_told_with_its_version(live: Running) -> None:
    async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
        old = await upload(client, "team")
        body = chat_body("team", ignore_eos=True, max_tokens=900, stream=True)
        async with client.stream("POST", "/v1/chat/completions", json=body) as stream:
            lines = stream.aiter_lines()  # one that nobody holds would hang up
            await anext(lines)
            new = await upload(client, "team", 2)
            record = await shown(client, "team")
            assert record["running"] == 1
            assert [(version["digest"], version["running"]) for version in record["versions"]] == [(old, 1), (new, 0)]
        await wait_until_async(lambda: not live.app.state.parts.use.running("team"))
        record = await shown(client, "team")
        assert record["running"] == 0
        assert record["usage"]["completion_tokens"] >= 1  # those of a request that was hung up on, too


@pytest.fixture
def keyed(settings: Settings) -> Settings:
    path = settings.store.parent / "keys.yaml"
    path.write_text("keys:\n  - {name: a, key: sk-team-a, models: [team-a]}\n  - {name: all, key: sk-everything}\n")
    return settings.model_copy(update={"key_file": path, "admin_keys": (SecretStr("sk-admin"),)})


async def test_a_key_is_told_of_its_own_adapters_alone(keyed: Settings) -> None:
    async with app_client(keyed) as (_, client):
        admin = {"authorization": "Bearer sk-admin"}
        for name in ("team-a", "team-b"):
            files = multipart(soft_prompt_files(1))
            await client.post("/v1/adapters", data={"name": name}, files=files, headers=admin)
        asked = [client.post("/v1/chat/completions", json=chat_body(f"team-{x}"), headers=admin) for x in "ab"]
        await asyncio.gather(*asked)
        for key, labels in (("sk-team-a", {"team-a"}), ("sk-everything", {"team-a", "team-b", OTHER})):
            told = await scraped(client, authorization=f"Bearer {key}")
            assert {label for _, label in told} == labels
        assert (await client.get("/metrics")).status_code == 401
