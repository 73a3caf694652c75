"""Keys over HTTP: what each may use, how much of it, and that nothing is told of the rest."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute, iter_route_contexts

from server.api.auth import KeyRing
from server.api.body_limit import DEFAULT_LIMIT_BYTES
from server.api.guarded_route import KEY_CHECKS, GuardedRoute
from server.config import Settings, SettingsError, load_settings
from server.keys import Caller, read_callers
from tests.server.building import (
    Running,
    app_client,
    chat_body,
    events_of,
    live_server,
    soft_prompt_files,
    tiny_settings,
    wait_until_async,
)
from tests.server.routes import NOBODY, routes_of

CHAT = "/v1/chat/completions"
ADMIN = "admin-key"
KEYS = """
keys:
  - {name: team-a, key: key-of-team-a, models: [movies, latest]}
  - {name: base-only, key: key-of-base-only, models: [tiny-llama]}
  - {name: free, key: key-of-free}
"""


def settings_with(base: Path, place: Path, keys: str = KEYS, **changes: Any) -> Settings:
    (place / "keys.yaml").write_text(keys)
    return tiny_settings(base, place / "store", key_file=place / "keys.yaml", admin_keys=(ADMIN,), **changes)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def models_of(client: httpx.AsyncClient, key: str) -> set[str]:
    return {card["id"] for card in (await client.get("/v1/models", headers=bearer(key))).json()["data"]}


async def adapters_of(client: httpx.AsyncClient, key: str) -> dict[str, list[str]]:
    listed = (await client.get("/v1/adapters", headers=bearer(key))).json()["data"]
    return {record["id"]: record["aliases"] for record in listed}


async def test_a_key_uses_and_sees_its_models_only(tiny_base: Path, tmp_path: Path) -> None:
    async with app_client(settings_with(tiny_base, tmp_path)) as (running, client):
        store = running.services.registry.store
        store.publish("movies", soft_prompt_files(1))
        store.publish("news", soft_prompt_files(2))
        store.alias("latest", "news")
        store.alias("hidden", "movies")
        digest = store.record("movies").current
        everything = {"tiny-llama", "movies", "news", "latest", "hidden"}
        assert await models_of(client, "key-of-free") == await models_of(client, ADMIN) == everything
        assert await models_of(client, "key-of-team-a") == {"movies", "latest"}
        assert await models_of(client, "key-of-base-only") == {"tiny-llama"}
        assert await adapters_of(client, "key-of-free") == {"movies": ["hidden"], "news": ["latest"]}
        assert await adapters_of(client, "key-of-team-a") == {"movies": []}
        assert await adapters_of(client, "key-of-base-only") == {}
        usable = ("movies", f"movies@{digest[:8]}", "tiny-llama:movies", "latest")
        for model in (*usable, "news", "hidden", "tiny-llama", "tiny-llama:news", f"news@{digest[:8]}"):
            response = await client.post(CHAT, json=chat_body(model, max_tokens=1), headers=bearer("key-of-team-a"))
            assert response.status_code == (200 if model in usable else 404), model
        shown = await client.get("/v1/adapters/latest", headers=bearer("key-of-team-a"))
        assert shown.status_code == 404  # the record would tell of "news"


async def test_a_forbidden_model_answers_like_an_unknown_one_on_every_route(tiny_base: Path, tmp_path: Path) -> None:
    async with app_client(settings_with(tiny_base, tmp_path)) as (running, client):
        running.services.registry.store.publish("news", soft_prompt_files(2))
        asked = 0
        for route in routes_of(running.app):
            bodies: list[Any] = [body for body in route.examples if {"model", "lora_name"} & body.keys()]
            if NOBODY not in route.path and not bodies:
                assert route.body is None or route.name.startswith("PATCH"), f"{route.name}: without an example"
                continue
            answers = []
            for name in ("news", "mews"):
                for body in bodies or [None]:
                    field = "lora_name" if body and "lora_name" in body else "model"
                    json = None if body is None else body | {field: name}
                    path = route.path.replace(NOBODY, name)
                    answer = await client.request(route.method, path, json=json, headers=bearer("key-of-team-a"))
                    answers.append((answer.status_code, answer.text.replace(name, "X")))
            assert len({*answers}) == 1, route.name
            if answers[0][0] == 404:
                assert '"model_not_found"' in answers[0][1]
                asked += 1
            else:
                assert answers[0][0] == 403, route.name  # changing adapters
        assert asked >= 3


async def test_requests_over_the_limit_are_429_until_it_is_refilled(tiny_base: Path, tmp_path: Path) -> None:
    keys = "keys: [{name: slow, key: key-of-slow, requests_per_minute: 2}, {name: free, key: key-of-free}]"
    async with app_client(settings_with(tiny_base, tmp_path, keys)) as (_, client):
        body = chat_body("tiny-llama", max_tokens=1)
        first, second, third = [await client.post(CHAT, json=body, headers=bearer("key-of-slow")) for _ in range(3)]
        assert [first.status_code, second.status_code, third.status_code] == [200, 200, 429]
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert [answer.headers["x-ratelimit-remaining-requests"] for answer in (first, second, third)] == [
            "1",
            "0",
            "0",
        ]
        assert "x-ratelimit-limit-tokens" not in first.headers
        assert 1 <= int(third.headers["retry-after"]) <= 30
        error = third.json()["error"]
        assert (error["type"], error["code"], error["param"]) == ("requests", "rate_limit_exceeded", None)
        assert "2 requests a minute" in error["message"]
        for free in ("/v1/models", "/v1/adapters", "/health"):  # only what the engine works for is counted
            assert (await client.get(free, headers=bearer("key-of-slow"))).status_code == 200
        unlimited = await client.post(CHAT, json=body, headers=bearer("key-of-free"))
        assert unlimited.status_code == 200
        assert not [name for name in unlimited.headers if name.startswith("x-ratelimit")]


async def test_tokens_over_the_limit_are_429(tiny_base: Path, tmp_path: Path) -> None:
    async with app_client(settings_with(tiny_base, tmp_path, tokens_per_minute=100)) as (_, client):
        body, headers = chat_body("tiny-llama", max_tokens=300, ignore_eos=True), bearer("key-of-free")
        before = await client.post(CHAT, json=body, headers=headers)
        assert (before.status_code, before.headers["x-ratelimit-limit-tokens"]) == (200, "100")
        assert before.headers["x-ratelimit-remaining-tokens"] == "0"
        after = await client.post(CHAT, json=body, headers=headers)
        assert (after.status_code, after.json()["error"]["type"]) == (429, "tokens")
        assert after.headers["x-ratelimit-remaining-tokens"] == "0"
        assert int(after.headers["retry-after"]) > 100
        assert (await client.post(CHAT, json=body, headers=bearer(ADMIN))).status_code == 200
        assert (await client.post(CHAT, json=body, headers=bearer("key-of-base-only"))).status_code == 200


PER_MINUTE = 1_000_000_000


def charged(running: Running, key: str) -> int:
    """The tokens that a key has used."""
    parts = running.app.state.parts
    account = parts.limits.account(parts.keys.caller(f"Bearer {key}"))
    return PER_MINUTE - int(account.headers()["x-ratelimit-remaining-tokens"])


async def test_what_is_charged_is_what_the_usage_says(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.api.limits.Allowance.left", lambda allowance, _: allowance._amount)  # no refill
    async with app_client(settings_with(tiny_base, tmp_path, tokens_per_minute=PER_MINUTE)) as (running, client):
        used = 0
        for path, body in (
            (CHAT, chat_body("tiny-llama", max_tokens=7, ignore_eos=True)),
            (CHAT, chat_body("tiny-llama", max_tokens=7, n=3, temperature=1)),
            (CHAT, chat_body("tiny-llama", max_tokens=20, stop=["a", "e", "\x00"])),
            ("/v1/completions", {"model": "tiny-llama", "prompt": ["one", "three"], "n": 2, "max_tokens": 5}),
            ("/v1/responses", {"model": "tiny-llama", "input": "hello", "max_output_tokens": 5}),
            ("/v1/embeddings", {"model": "tiny-llama", "input": ["one", "three"]}),
        ):
            response = await client.post(path, json=body, headers=bearer("key-of-free"))
            assert response.status_code == 200, response.text
            used += response.json()["usage"]["total_tokens"]
            assert charged(running, "key-of-free") == used, path
        refused = await client.post(CHAT, json=chat_body("nobody"), headers=bearer("key-of-free"))
        assert (refused.status_code, charged(running, "key-of-free")) == (404, used)
        stream = chat_body("tiny-llama", max_tokens=7, stream=True, stream_options={"include_usage": True})
        events = events_of((await client.post(CHAT, json=stream, headers=bearer("key-of-free"))).text)
        used += events[-2]["usage"]["total_tokens"]
        assert charged(running, "key-of-free") == used
        assert charged(running, "key-of-base-only") == 0


async def test_a_stream_that_is_hung_up_on_is_charged_as_far_as_it_came(tiny_base: Path, tmp_path: Path) -> None:
    settings = settings_with(tiny_base, tmp_path, tokens_per_minute=500)
    with live_server(settings) as (running, _):
        body = chat_body("tiny-llama", ignore_eos=True, max_tokens=900, stream=True)
        async with httpx.AsyncClient(base_url=running.url, headers=bearer("key-of-free")) as client:
            async with client.stream("POST", CHAT, json=body) as stream:
                lines = stream.aiter_lines()
                for _ in range(20):
                    await anext(lines)
            await wait_until_async(lambda: running.engine.stats().num_running == 0)
        parts = running.app.state.parts
        left = int(
            parts.limits.account(parts.keys.caller("Bearer key-of-free")).headers()["x-ratelimit-remaining-tokens"]
        )
        assert left < 490


async def test_without_keys_all_share_one_limit(tiny_base: Path, tmp_path: Path) -> None:
    async with app_client(tiny_settings(tiny_base, tmp_path / "store", requests_per_minute=1)) as (_, client):
        body = chat_body("tiny-llama", max_tokens=1)
        statuses = [
            (await client.post(CHAT, json=body, headers=headers)).status_code for headers in ({}, bearer("any"), {})
        ]
        assert statuses == [200, 429, 429]


ORIGIN = "https://chat.example"


async def test_pages_of_other_origins_are_refused_unless_named(tiny_base: Path, tmp_path: Path) -> None:
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-stainless-os"}
    async with app_client(settings_with(tiny_base, tmp_path)) as (_, client):
        closed = await client.options(CHAT, headers={"origin": ORIGIN} | asks)
        assert closed.status_code == 405
        assert not [name for name in closed.headers if name.startswith("access-control")]
    async with app_client(settings_with(tiny_base, tmp_path, cors_origins=(ORIGIN,))) as (_, client):
        allowed = await client.options(CHAT, headers={"origin": ORIGIN} | asks)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, ORIGIN)
        assert "x-stainless-os" in allowed.headers["access-control-allow-headers"]
        assert allowed.headers["x-request-id"]
        assert "access-control-allow-credentials" not in allowed.headers
        refused = await client.options(CHAT, headers={"origin": "https://evil.example"} | asks)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in refused.headers
        keyless = await client.post(CHAT, json=chat_body("tiny-llama"), headers={"origin": ORIGIN})
        assert (keyless.status_code, keyless.headers["access-control-allow-origin"]) == (401, ORIGIN)
        answered = await client.post(
            CHAT, json=chat_body("movies"), headers={"origin": ORIGIN} | bearer("key-of-team-a")
        )
        assert (answered.status_code, answered.headers["access-control-allow-origin"]) == (404, ORIGIN)
        assert "retry-after" in answered.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    "origins", ["*", "chat.example", "https://a.example/", "https://a.example,", "ftp://a", "null"]
)
def test_origins_are_a_list_of_origins(origins: str) -> None:
    with pytest.raises(SettingsError, match="--cors-origins"):
        load_settings(cors_origins=origins)


def test_origins_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTPROMPT_CORS_ORIGINS", "https://Chat.example, http://localhost:3000,http://[::1]:80")
    assert load_settings().cors_origins == ("https://chat.example", "http://localhost:3000", "http://[::1]:80")


UNREADABLE: dict[str, dict[str, Any]] = {
    "broken JSON": {"content": b"{", "headers": {"content-type": "application/json"}},
    "far too deep": {"content": b"[" * 100_000, "headers": {"content-type": "application/json"}},
    "no JSON at all": {"content": b"x", "headers": {"content-type": "text/plain"}},
    "too long": {"content": b" " * (DEFAULT_LIMIT_BYTES + 1), "headers": {"content-type": "application/json"}},
    "wrong fields": {"json": {"model": 1}},
    "a broken form": {"content": b"--", "headers": {"content-type": "multipart/form-data; boundary=x"}},
}


@pytest.mark.parametrize("kind", list(UNREADABLE))
async def test_a_key_is_asked_for_before_the_body_is_read(tiny_base: Path, tmp_path: Path, kind: str) -> None:
    async with app_client(settings_with(tiny_base, tmp_path)) as (running, client):
        body = UNREADABLE[kind]
        for route in routes_of(running.app):
            if route.method not in ("POST", "PATCH"):
                continue
            for key in ("", "key-of-nobody"):
                headers = body.get("headers", {}) | (bearer(key) if key else {})
                answer = await client.request(route.method, route.path, **(body | {"headers": headers}))
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key"), route.name
                assert answer.headers["www-authenticate"] == "Bearer"
            headers = body.get("headers", {}) | bearer("key-of-free")
            known = await client.request(route.method, route.path, **(body | {"headers": headers}))
            assert known.status_code in (400, 403, 413, 415), route.name


class _CountingRing(KeyRing):
    """Counts how often it compares digests."""

    num_asked = 0

    def caller(self, authorization: str | None) -> Caller:
        self.num_asked += 1
        return super().caller(authorization)


async def test_a_requests_key_is_compared_once(tiny_base: Path, tmp_path: Path) -> None:
    settings = settings_with(tiny_base, tmp_path)
    async with app_client(settings) as (running, client):
        ring = _CountingRing(read_callers(settings))
        running.app.state.parts = replace(running.app.state.parts, keys=ring)
        for request in [client.get("/v1/models", headers=bearer("key-of-free")), client.get("/v1/models")]:
            await request
            assert ring.num_asked == 1
            ring.num_asked = 0
        answer = await client.post("/v1/chat/completions", headers=bearer("key-of-free"), json=chat_body("tiny-llama"))
        assert (answer.status_code, ring.num_asked) == (200, 1)


async def test_every_route_that_checks_keys_checks_them_first(tiny_base: Path, tmp_path: Path) -> None:
    async with app_client(settings_with(tiny_base, tmp_path)) as (running, _):
        found = 0
        for context in iter_route_contexts(running.app.routes):
            route = context.original_route
            if isinstance(route, APIRoute) and {depends.dependency for depends in route.dependencies} & {*KEY_CHECKS}:
                assert isinstance(route, GuardedRoute), route.path
                found += 1
        assert found >= 15
