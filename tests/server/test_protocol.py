"""The wire types: nothing that a client sends is unbounded, and no field is accepted without being known."""

from typing import Any

import pytest
from pydantic import BaseModel

from server.protocol.adapters import AdapterChange
from server.protocol.chat import ChatCompletionRequest

UPPER_BOUNDS = {"string": ("maxLength", "enum", "const"), "integer": ("maximum",), "number": ("maximum",)}


def unbounded(schema: dict[str, Any], path: str) -> list[str]:
    """Paths in a JSON schema where a value may be of any size, and objects that take any number of keys.

    What objects of any keys hold is bounded beside the schema, see `json_values`.
    """
    found = []
    kind = schema.get("type")
    if kind in UPPER_BOUNDS and not any(bound in schema for bound in UPPER_BOUNDS[kind]):
        found.append(path)
    others = schema.get("additionalProperties", True) if kind == "object" else False
    if others is not False and "maxProperties" not in schema:
        found.append(path)
    if kind == "array" and "maxItems" not in schema:
        found.append(path)
    children = {**schema.get("properties", {}), **schema.get("$defs", {})}
    children |= {f"|{number}": choice for number, choice in enumerate(schema.get("anyOf", []))}
    if isinstance(others, dict):
        children["{}"] = others
    if "items" in schema:
        children["[]"] = schema["items"]
    for name, child in children.items():
        found += unbounded(child, f"{path}.{name}")
    return found


@pytest.mark.parametrize("model", [ChatCompletionRequest, AdapterChange])
def test_every_value_of_a_request_has_an_upper_bound(model: type[BaseModel]) -> None:
    # `stop` is bounded beside its choices and not inside them, `rollback` by its own check
    assert [
        path for path in unbounded(model.model_json_schema(), "") if not path.startswith((".stop.", ".rollback."))
    ] == []
