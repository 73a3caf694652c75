"""Nothing in a request is unbounded: every field of every body, found by walking the types themselves."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as at
import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

import server.protocol
from server.protocol.base import RequestBody

ENDLESS: dict[str, Any] = {"a": "x" * 5_000_000}
TOO_MANY: dict[str, Any] = {"a": [0] * 1_000_000}
TOO_DEEP: dict[str, Any] = {}
for _ in range(200):
    TOO_DEEP = {"a": TOO_DEEP}


def request_bodies() -> list[type[RequestBody]]:
    """Every request type of the wire, at any depth of inheritance."""
    for module in pkgutil.iter_modules(server.protocol.__path__):
        importlib.import_module(f"server.protocol.{module.name}")
    return sorted(_below(RequestBody), key=lambda model: model.__qualname__)


def _below(model: type[RequestBody]) -> set[type[RequestBody]]:
    found = {deeper for child in model.__subclasses__() for deeper in {child, *_below(child)}}
    return {child for child in found if child.__module__.startswith("server.")}


def unbounded(annotation: Any, metadata: Sequence[Any], path: str) -> Iterator[str]:
    """Paths of what may be of any size. `metadata` is what stands around the annotation."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from unbounded(arguments[0], [*metadata, *_flat(arguments[1:])], path)
    elif origin in (Union, UnionType):
        for argument in arguments:
            yield from unbounded(argument, metadata, path)
    elif annotation is Any or Any in arguments:
        if not _refuses_the_endless(annotation, metadata):
            yield f"{path}: anything"
    elif origin in (list, tuple, set, frozenset, dict, Sequence, Mapping):
        if not _has(metadata, at.MaxLen):
            yield f"{path}: without a most number of entries"
        for argument in arguments:
            if argument is not Ellipsis:
                yield from unbounded(argument, [], f"{path}[]")
    elif annotation in (str, bytes):
        if not _has(metadata, at.MaxLen):
            yield f"{path}: text of any length"
    elif annotation in (int, float):
        if not (_has(metadata, at.Le, at.Lt) and _has(metadata, at.Ge, at.Gt)):
            yield f"{path}: a number of any size"
    elif not _is_small(annotation, origin):
        yield f"{path}: {annotation!r}"


def _is_small(annotation: Any, origin: Any) -> bool:
    """Of few values, or a request type, whose fields are walked on their own."""
    if origin is Literal or annotation in (bool, None, NoneType):
        return True
    return isinstance(annotation, type) and issubclass(annotation, RequestBody | Enum)


def _flat(metadata: Sequence[Any]) -> list[Any]:
    return [inner for entry in metadata for inner in (entry.metadata if isinstance(entry, FieldInfo) else [entry])]


def _has(metadata: Sequence[Any], *kinds: type) -> bool:
    return any(isinstance(entry, kinds) for entry in _flat(metadata))


def _refuses_the_endless(annotation: Any, metadata: Sequence[Any]) -> bool:
    """Whether what may be of any type is bounded by a check of its own."""
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[annotation, *metadata] if metadata else annotation)
    return all(_refuses(adapter, value) for value in (ENDLESS, TOO_MANY, TOO_DEEP))


def _refuses(adapter: TypeAdapter[Any], value: object) -> bool:
    try:
        adapter.validate_python(value)
    except ValidationError:
        return True
    return False


def problems_of(model: type[BaseModel]) -> list[str]:
    """Every unbounded field of one type."""
    return [
        problem
        for name, field in model.model_fields.items()
        for problem in unbounded(field.annotation, field.metadata, f"{model.__name__}.{name}")
    ]


@pytest.mark.parametrize("model", request_bodies(), ids=lambda model: model.__name__)
def test_every_field_of_every_request_has_an_upper_bound(model: type[RequestBody]) -> None:
    assert problems_of(model) == []
    assert model.model_config["extra"] == "forbid"
    assert model.model_config["allow_inf_nan"] is False


class Unbounded(BaseModel):
    """What the test above must find."""

    text: str
    texts: list[Annotated[str, Field(max_length=3)]]
    inner: list[str] = Field(max_length=3)
    number: int | None = Field(default=None, ge=0)
    numbers: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(max_length=3)
    anything: dict[str, Any] = Field(max_length=3)
    fine: Annotated[list[Annotated[str, Field(max_length=3)]] | None, Field(max_length=3)] = None
    also_fine: Literal["a", "b"] | bool | None = None


def test_the_walk_finds_what_is_unbounded() -> None:
    assert [problem.removeprefix("Unbounded.") for problem in problems_of(Unbounded)] == [
        "text: text of any length",
        "texts: without a most number of entries",
        "inner[]: text of any length",
        "number: a number of any size",
        "numbers[]: text of any length",
        "anything: anything",
    ]
