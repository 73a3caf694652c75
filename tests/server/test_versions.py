"""Which version of a name answers: canaries, who gets them, and what ends them."""

from typing import Any

import httpx
import pytest

from tests.server.building import chat_body, multipart, soft_prompt_files
from tests.server.conftest import Served

USERS = [f"user-{number}" for number in range(40)]


async def upload(client: httpx.AsyncClient, name: str, seed: int) -> str:
    response = await client.post("/v1/adapters", data={"name": name}, files=multipart(soft_prompt_files(seed)))
    assert response.status_code == 201, response.text
    digest: str = response.json()["digest"]
    return digest


async def change(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    response = await client.patch("/v1/adapters/support", json=fields)
    assert response.status_code == 200, response.text
    record: dict[str, Any] = response.json()
    return record


async def fingerprint(client: httpx.AsyncClient, model: str = "support", **fields: Any) -> str:
    response = await client.post("/v1/chat/completions", json=chat_body(model, max_tokens=1, **fields))
    assert response.status_code == 200, response.text
    told: str = response.json()["system_fingerprint"]
    return told


async def test_a_canary_answers_some_users_always(served: Served) -> None:
    running, client = served
    new, old = await upload(client, "support", 2), await upload(client, "support", 1)
    by_version = {digest: await fingerprint(client, f"support@{digest}") for digest in (old, new)}
    record = await change(client, canary={"digest": new[:8], "percent": 30}, alias="prod")
    assert record["canary"] == {"digest": new, "percent": 30}
    assert record["digest"] == old
    assert running.services.registry.is_resident(new)
    stored = running.services.registry.store.record("support")
    expected = {user: by_version[stored.digest_for(user)] for user in USERS}
    assert set(expected.values()) == set(by_version.values())
    for model in ("support", "prod", "tiny-llama:support"):
        assert {user: await fingerprint(client, model, user=user) for user in USERS} == expected
    assert await fingerprint(client, f"prod@{old[:6]}", user=USERS[0]) == by_version[old]
    spread = {await fingerprint(client) for _ in range(60)}
    assert spread == set(by_version.values())
    assert (await change(client, canary=None))["canary"] is None
    assert {await fingerprint(client, user=user) for user in USERS} == {by_version[old]}


async def test_one_request_has_one_version(served: Served) -> None:
    _, client = served
    new, _ = await upload(client, "support", 2), await upload(client, "support", 1)
    await change(client, canary={"digest": new, "percent": 50})
    many = {"model": "support", "prompt": ["a"] * 32, "max_tokens": 8, "temperature": 0}
    seen = set()
    for _ in range(12):
        choices = (await client.post("/v1/completions", json=many)).json()["choices"]
        texts = {choice["text"] for choice in choices}
        assert len(texts) == 1
        seen |= texts
    assert len(seen) == 2


async def test_publishing_and_rolling_back_end_a_canary(served: Served) -> None:
    _, client = served
    new, old = await upload(client, "support", 2), await upload(client, "support", 1)
    await change(client, canary={"digest": new, "percent": 5})
    assert (await change(client, pinned=True))["canary"] == {"digest": new, "percent": 5}
    assert (await change(client, rollback=new))["canary"] is None
    both = await change(client, rollback=old, canary={"digest": new, "percent": 7})
    assert (both["digest"], both["canary"]) == (old, {"digest": new, "percent": 7})
    await upload(client, "support", 3)
    assert (await client.get("/v1/adapters/support")).json()["canary"] is None


@pytest.mark.parametrize("canary", [5, {}, {"digest": "abc", "percent": 5}, {"digest": "a" * 6, "percent": 100}])
async def test_what_is_no_canary_is_a_400(served: Served, canary: Any) -> None:
    _, client = served
    await upload(client, "support", 1)
    response = await client.patch("/v1/adapters/support", json={"canary": canary})
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith("canary")


async def test_a_canary_that_cannot_be_changes_nothing(served: Served) -> None:
    _, client = served
    digest = await upload(client, "support", 1)
    before = (await client.get("/v1/adapters/support")).json()
    for wrong, status in ((digest, 400), ("abcdef", 404)):
        body = {"canary": {"digest": wrong, "percent": 5}, "alias": "prod", "pinned": True}
        assert (await client.patch("/v1/adapters/support", json=body)).status_code == status
        assert (await client.get("/v1/adapters/support")).json() == before


BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2},
    "/v1/completions": {"prompt": ["hello", "there"], "max_tokens": 2},
    "/v1/responses": {"input": "hello", "max_output_tokens": 2},
    "/v1/embeddings": {"input": "hello"},
}


@pytest.mark.parametrize("path", list(BODIES))
async def test_the_answer_says_which_version_it_is_of(served: Served, path: str) -> None:
    _, client = served
    digests = {await upload(client, "support", seed) for seed in (1, 2)}
    record = (await client.get("/v1/adapters/support")).json()
    [canary] = digests - {record["digest"]}
    await change(client, canary={"digest": canary, "percent": 50}, alias="prod")
    told = set()
    for stream in (False, True) if path != "/v1/embeddings" else (False,):
        fields = BODIES[path] | ({"stream": True} if stream else {})
        for model in ("support", "prod", "tiny-llama:support"):
            for user in USERS[:12]:
                answer = await client.post(path, json=fields | {"model": model, "user": user})
                assert answer.status_code == 200, answer.text
                told.add((user, answer.headers["x-hotprompt-adapter"]))
        one = await client.post(path, json=fields | {"model": f"prod@{canary[:6]}"})
        assert one.headers["x-hotprompt-adapter"] == f"support@{canary}"
        base = await client.post(path, json=fields | {"model": "tiny-llama"})
        assert (base.status_code, "x-hotprompt-adapter" in base.headers) == (200, False)
    assert len(told) == 12  # each user had one version, whatever the route and the name
    assert {header for _, header in told} == {f"support@{digest}" for digest in digests}
