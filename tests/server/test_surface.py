"""What holds for every route: keys, request ids, error shape, size of bodies; and health."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from pydantic import SecretStr
from starlette.routing import compile_path

from server.config import Settings
from tests.server.building import app_client, chat_body, tiny_settings
from tests.server.conftest import Served

OPEN = {"/health", "/ready", "/openapi.json", "/", "/page/{file}"}
CHANGING = {
    "POST /v1/adapters",
    "POST /v1/adapters/{name}/verify",
    "PATCH /v1/adapters/{name}",
    "DELETE /v1/adapters/{name}",
    "GET /v1/adapters/jobs",
    "GET /v1/adapters/jobs/{job}",
    "DELETE /v1/adapters/jobs/{job}",
    "DELETE /v1/models/{model}",
    "GET /v1/adapters/{name}/export",
    "POST /v1/load_lora_adapter",
    "POST /v1/unload_lora_adapter",
}


def _locked(base: Path, store: Path) -> Settings:
    keys: dict[str, Any] = {"api_keys": (SecretStr("chat-key"),), "admin_keys": (SecretStr("admin-key"),)}
    return tiny_settings(base, store, **keys)


def _routes(client_app: Any) -> list[tuple[str, str]]:
    found = []
    pending = list(client_app.routes)
    while pending:
        route = pending.pop()
        pending += getattr(getattr(route, "original_router", None), "routes", [])
        if isinstance(route, APIRoute):
            found += [(method, re.sub(r":path\}", "}", route.path)) for method in route.methods or ()]
    return found


async def test_every_route_asks_for_its_key(tiny_base: Path, tmp_path: Path) -> None:
    async with app_client(_locked(tiny_base, tmp_path)) as (running, client):
        routes = _routes(running.app)
        assert len(routes) >= 11
        for method, path in routes:
            url = path.replace("{name}", "nobody").replace("{model}", "nobody").replace("{job}", "nobody")
            url = url.replace("{file}", "app.js")
            statuses = {
                key: (await client.request(method, url, headers={"authorization": f"Bearer {key}"})).status_code
                for key in ("", "wrong", "chat-key", "admin-key")
            }
            bare = await client.request(method, url)
            if path in OPEN:
                assert bare.status_code == 200
                continue
            assert bare.status_code == statuses[""] == statuses["wrong"] == 401, (method, path)
            assert bare.json()["error"]["code"] == "invalid_api_key"
            assert bare.headers["www-authenticate"] == "Bearer"
            assert statuses["admin-key"] not in (401, 403), (method, path)
            expected_refused = f"{method} {path}" in CHANGING
            assert (statuses["chat-key"] == 403) is expected_refused, (method, path)


async def test_keys_are_found_by_route_not_by_host_or_spelling(tiny_base: Path, tmp_path: Path) -> None:
    async with app_client(_locked(tiny_base, tmp_path)) as (_, client):
        for host in ("a/?x=", "x/health?"):
            response = await client.get("/v1/models", headers={"host": host})
            assert response.status_code in (400, 401)
        assert (await client.get("//v1/models")).status_code in (401, 404)


async def test_errors_have_one_shape(served: Served) -> None:
    _, client = served
    answers = [
        (await client.get("/nowhere"), 404),
        (await client.get("/health/"), 404),
        (await client.put("/v1/models"), 405),
        (await client.post("/v1/chat/completions", content=b"x" * (5 << 20)), 413),
        (await client.get("/v1/models/nobody"), 404),
        (await client.get("/v1/adapters/..%2f..%2fetc"), 400),
    ]
    for response, status in answers:
        assert response.status_code in (status, 404 if status == 400 else status)
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
        assert not re.search(r"0x[0-9a-f]{4}|Traceback|/site-packages/", response.text)


async def test_a_good_request_id_is_echoed_and_another_replaced(served: Served) -> None:
    _, client = served
    good = await client.get("/health", headers={"x-request-id": "abc-123"})
    assert good.headers["x-request-id"] == "abc-123"
    for bad in ("x" * 200, "a\tb"):
        replaced = (await client.get("/health", headers={"x-request-id": bad})).headers["x-request-id"]
        assert replaced != bad
        assert replaced


async def test_no_request_waits_until_routes_are_built(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    _, client = served
    built: list[str] = []

    def counted(path: str) -> Any:
        built.append(path)
        return compile_path(path)

    monkeypatch.setattr("fastapi.routing.compile_path", counted)
    assert (await client.get("/metrics")).status_code == 200
    assert built == []


async def test_health_and_ready_follow_the_engine(served: Served) -> None:
    running, client = served
    assert [(await client.get(path)).status_code for path in ("/health", "/ready")] == [200, 200]
    running.engine.begin_drain()
    assert [(await client.get(path)).status_code for path in ("/health", "/ready")] == [200, 503]
    refused = await client.post("/v1/chat/completions", json=chat_body("tiny-llama"))
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    await running.engine.stop(grace_seconds=0)
    assert [(await client.get(path)).status_code for path in ("/health", "/ready")] == [503, 503]


async def test_a_full_queue_is_a_503_that_says_when_to_come_back(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    from server.engine.errors import EngineOverloaded

    running, client = served

    async def full(*_: Any, **__: Any) -> Any:
        raise EngineOverloaded("full")
        yield

    monkeypatch.setattr(running.engine, "generate", full, raising=False)
    for stream in (False, True):
        response: httpx.Response = await client.post(
            "/v1/chat/completions", json=chat_body("tiny-llama", stream=stream)
        )
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert response.json()["error"]["code"] == "engine_overloaded"
