"""JSON objects that clients write as they like, bounded in size and depth. Knows no field."""

from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

MAX_JSON_BYTES = 64 * 1024
MAX_JSON_DEPTH = 32


def _bounded(value: dict[str, Any]) -> dict[str, Any]:
    if _is_deeper(value, MAX_JSON_DEPTH):
        raise PydanticCustomError("json_depth", "must be nested at most {depth} deep", {"depth": MAX_JSON_DEPTH})
    if len(orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_SUBCLASS, default=str)) > MAX_JSON_BYTES:
        raise PydanticCustomError("json_size", "must be at most {size} bytes of JSON", {"size": MAX_JSON_BYTES})
    return value


def _is_deeper(value: object, depth: int) -> bool:
    if isinstance(value, dict):
        return depth == 0 or any(_is_deeper(inner, depth - 1) for inner in value.values())
    if isinstance(value, list):
        return depth == 0 or any(_is_deeper(inner, depth - 1) for inner in value)
    return False


JsonObject = Annotated[dict[str, Any], Field(max_length=1024), AfterValidator(_bounded)]
