"""The OpenAPI document: valid, and true of every route."""

from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate
from pydantic import TypeAdapter

from server.api.openapi_examples import EXAMPLES
from server.api.openapi_streams import STREAMED
from tests.server.building import app_client, tiny_settings
from tests.server.conftest import Served
from tests.server.routes import RouteUnderTest, routes_of

OPEN = {"/health", "/ready"}


def operations(document: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def in_document(served: Served) -> list[RouteUnderTest]:
    return [route for route in routes_of(served[0].app) if route.in_document]


async def test_it_is_valid_and_has_every_route(served: Served) -> None:
    running, client = served
    response = await client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    validate(document)
    assert set(operations(document)) == {route.name for route in in_document(served)}
    left_out = {route.template for route in routes_of(running.app) if not route.in_document}
    assert left_out == {"/openapi.json", "/", "/page/app.js"}
    assert (await client.get("/docs")).status_code == (await client.get("/redoc")).status_code == 404


MEDIA = dict.fromkeys(("/metrics", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"), "text/plain") | {
    "/v1/adapters/{name}/export": "application/x-tar",
    "/v1/adapters/{name}/card": "text/markdown; charset=utf-8",
}
"""What is answered in another form than JSON."""


async def test_bodies_answers_and_errors_are_told(served: Served) -> None:
    _, client = served
    document = (await client.get("/openapi.json")).json()
    by_name = operations(document)
    for route in in_document(served):
        operation = by_name[route.name]
        success = next(status for status in operation["responses"] if status.startswith("2"))
        content = operation["responses"][success]["content"]
        assert content[MEDIA.get(route.template, "application/json")]["schema"], route.name
        assert operation["summary"], route.name
        assert operation["description"], route.name
        assert "422" not in operation["responses"], route.name
        if route.body is not None:
            assert operation["requestBody"]["content"]["application/json"]["schema"], route.name
            assert {"400", "413", "415"} <= set(operation["responses"]), route.name
        for status, answer in operation["responses"].items():
            if int(status) >= 400 and route.template not in OPEN:
                assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorResponse")
    upload = by_name["POST /v1/adapters"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert upload["properties"]["adapter_model.safetensors"]["format"] == "binary"
    assert "authorization" not in str(by_name).lower().replace("authorization: bearer", "")


async def test_each_body_has_examples_that_it_accepts(served: Served) -> None:
    routes = {route.name: route for route in in_document(served) if route.body is not None}
    assert set(EXAMPLES) == set(routes)
    for route in routes.values():
        assert route.examples
        for example in route.examples:
            TypeAdapter(route.body).validate_python(example)
    document = (await served[1].get("/openapi.json")).json()
    for name in routes:
        assert operations(document)[name]["requestBody"]["content"]["application/json"]["examples"]


async def test_what_can_stream_says_so(served: Served) -> None:
    document = (await served[1].get("/openapi.json")).json()
    for route in in_document(served):
        if "stream" in getattr(route.body, "model_fields", {}):
            assert route.body in STREAMED, f"{route.name}: what are its events made of?"
            assert "text/event-stream" in operations(document)[route.name]["responses"]["200"]["content"]
            stream = operations(document)[route.name]["responses"]["200"]["content"]["text/event-stream"]
            data = stream["itemSchema"]["properties"]["data"]["anyOf"][0]
            for shape in data["contentSchema"]["anyOf"]:
                assert shape["$ref"].rpartition("/")[2] in document["components"]["schemas"]


@pytest.mark.parametrize(
    ("keys", "chat", "change"),
    [
        ({}, [{"bearer": []}, {}], [{}]),
        ({"admin_keys": ("a",)}, [{"bearer": []}, {}], [{"bearer": []}]),
        ({"api_keys": ("a",)}, [{"bearer": []}], [{"bearer": []}]),
    ],
)
async def test_keys_are_told_as_they_are_asked_for(
    tiny_base: Path, tmp_path: Path, keys: dict[str, Any], chat: list[Any], change: list[Any]
) -> None:
    async with app_client(tiny_settings(tiny_base, tmp_path / "store", **keys)) as (_, client):
        by_name = operations((await client.get("/openapi.json")).json())
        assert by_name["POST /v1/chat/completions"]["security"] == chat
        assert by_name["GET /v1/models"]["security"] == chat
        assert by_name["POST /v1/adapters"]["security"] == change
        assert by_name["GET /health"]["security"] == []
