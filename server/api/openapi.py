"""The OpenAPI document: FastAPI's, made true by what each route really is guarded by, reads and answers. Knows no work.

Errors, keys and event streams are not written down route by route: they follow from a route's dependencies and body.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from pydantic import BaseModel

from server.api.auth import KeyRing
from server.api.deps import count_request, refuse_when_stopping, require_admin_key, require_chat_key
from server.api.openapi_examples import EXAMPLES
from server.api.openapi_streams import STREAMED
from server.protocol.errors import ErrorResponse

OPENAPI_VERSION = "3.2.0"
"""The first that has words for event streams."""
BEARER = "bearer"
RATE_LIMIT_HEADERS = {
    "limit": "What the key may use in a minute",
    "remaining": "What is left of it",
    "reset": "How long until all of it is there again, as 450ms, 7.66s, 1m30s",
}

_REFS = "#/components/schemas/{model}"
_JSON = "application/json"
DONE = "[DONE]"

ERRORS = {
    400: "The body, or a field of it, is refused; `param` names the field.",
    401: "No key, or an unknown one.",
    403: "A key for chat where an admin key is needed.",
    404: "No such model or adapter, or none that this key may use.",
    409: "An alias stands in the way.",
    413: "The body is too large.",
    415: "The body does not say that it is what this route reads.",
    429: "This key has used up its requests or tokens of a minute.",
    500: "The request could not be computed, or the store cannot be read.",
    503: "The queue is full, or the server is stopping.",
    507: "The disk of the adapter store is full.",
}


def make_document(app: FastAPI, keys: KeyRing, version: str) -> dict[str, Any]:
    """The document of an app and its keys. Takes a tenth of a second."""
    document = get_openapi(
        title="hotprompt",
        version=version,
        openapi_version=OPENAPI_VERSION,
        description="One base model and its adapters, chosen by `model`, behind OpenAI's API.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        routes=app.routes,
    )
    schemas: dict[str, Any] = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # this server has its own shape for them
        schemas.pop(name, None)
    schemas.update(_schemas_of([ErrorResponse, *STREAMED.values()]))
    document["components"]["securitySchemes"] = {
        BEARER: {"type": "http", "scheme": "bearer", "description": "A key that the server was started with."}
    }
    for route in api_routes(app):
        for method in route.methods or ():
            _complete(document["paths"][path_of(route)][method.lower()], method, route, keys)
    return document


def api_routes(app: FastAPI) -> Iterator[RouteContext]:
    """The routes that are in the document."""
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, APIRoute) and route.include_in_schema:
            yield route


def path_of(route: RouteContext) -> str:
    """A route's path as the document has it."""
    assert route.path_format is not None, "routes of the document have a path"
    return route.path_format


def body_model(route: RouteContext) -> Any:
    """The type of a route's JSON body; None without one."""
    return None if route.body_field is None else route.body_field.field_info.annotation


def guards_of(route: RouteContext) -> set[Any]:
    """Every dependency of a route, at any depth."""
    return set(_calls(route.dependant))


def _calls(dependant: Dependant) -> Iterator[Any]:
    for inner in dependant.dependencies:
        yield inner.call
        yield from _calls(inner)


def _complete(operation: dict[str, Any], method: str, route: RouteContext, keys: KeyRing) -> None:
    guards, responses = guards_of(route), operation["responses"]
    responses.pop("422", None)
    for status in _error_statuses(route, method, guards):
        responses.setdefault(str(status), _error_response(status))
    operation["security"] = _security(guards, keys)
    model = body_model(route)
    if "stream" in getattr(model, "model_fields", {}):
        responses["200"]["content"]["text/event-stream"] = _event_stream(STREAMED[model])
    if count_request in guards:
        for counted in ("200", "429"):
            responses[counted].setdefault("headers", {}).update(_limit_headers())
    for media in operation.get("requestBody", {}).get("content", {}).values():
        if examples := EXAMPLES.get(f"{method} {path_of(route)}"):
            media["examples"] = {name: {"value": value} for name, value in examples.items()}
    if (success := next((code for code in responses if code.startswith("2")), None)) is not None:
        responses[success].setdefault("headers", {})["x-request-id"] = _header(
            "The request's id: the client's own, or a new one"
        )


def _error_statuses(route: RouteContext, method: str, guards: set[Any]) -> set[int]:
    """What a route may answer beside its success, by what it is made of."""
    statuses = set()
    if require_chat_key in guards or require_admin_key in guards:
        statuses |= {401, 500}
    if require_admin_key in guards:
        statuses |= {403, 404, 409, 507}
    if count_request in guards:
        statuses.add(429)
    if refuse_when_stopping in guards:
        statuses.add(503)
    if "{" in path_of(route):
        statuses |= {400, 404}
    if method in ("POST", "PATCH", "PUT"):
        statuses |= {400, 404, 413, 415}
    return statuses


def _error_response(status: int) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": ERRORS[status],
        "content": {_JSON: {"schema": {"$ref": _REFS.format(model=ErrorResponse.__name__)}}},
    }
    if status in (429, 503):
        response["headers"] = {"retry-after": _header("Seconds after which to come again")}
    return response


def _security(guards: set[Any], keys: KeyRing) -> list[dict[str, list[str]]]:
    """What key a route asks for; an empty entry stands for none."""
    if require_admin_key in guards:
        return [{}] if keys.is_all_open else [{BEARER: []}]
    if require_chat_key in guards:
        return [{BEARER: []}, {}] if keys.is_chat_open else [{BEARER: []}]
    return []


def _event_stream(event: type[BaseModel]) -> dict[str, Any]:
    """Server-sent events: each has JSON as its data; comments between them are to be ignored."""
    names = (event.__name__, ErrorResponse.__name__)
    data = {
        "type": "string",
        "description": f"{' or '.join(names)}; the last one may be {DONE}",
        "contentMediaType": _JSON,
        "contentSchema": {"anyOf": [{"$ref": _REFS.format(model=name)} for name in names]},
    }
    last = {"type": "string", "const": DONE}
    return {
        "itemSchema": {
            "type": "object",
            "required": ["data"],
            "properties": {"event": {"type": "string"}, "data": {"anyOf": [data, last]}},
        }
    }


def _limit_headers() -> dict[str, Any]:
    return {
        f"x-ratelimit-{kind}-{unit}": _header(f"{said}, in {unit}; only where there is such a limit")
        for kind, said in RATE_LIMIT_HEADERS.items()
        for unit in ("requests", "tokens")
    }


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


def _schemas_of(models: Iterable[type[BaseModel]]) -> dict[str, Any]:
    """The schemas of models as answers, and of all that is in them, by name."""
    schemas: dict[str, Any] = {}
    for model in models:
        schema = model.model_json_schema(mode="serialization", ref_template=_REFS)
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    return schemas
