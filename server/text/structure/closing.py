"""Closes objects that name their properties, where that leaves something to say. Knows no grammar.

Of an object that a schema leaves open a small model goes on to invent properties until its length is used up. An answer
is a text that validates, not all of them: one without further properties validates as well, but for where several
schemas hold for one value. An object stays open there, for another schema may ask for a property that this one lacks.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from server.text.structure.keywords import LISTS_OF_SCHEMAS, MAPS_OF_SCHEMAS, SCHEMAS, Schema, target_of

_ON_CONTENT = frozenset(
    {
        *("properties", "patternProperties", "additionalProperties", "required", "minProperties", "maxProperties"),
        *("items", "prefixItems", "additionalItems"),
    }
)
"""Keywords that say what is in an object or a list."""
_OPENING = frozenset(
    {"additionalProperties", "patternProperties", "$ref", "allOf", "anyOf", "oneOf", "const", "enum"},
)
"""Beside one of these an object is left as it is."""


def with_closed_objects(schema: Schema) -> Schema:
    """The schema, as SchemaReader gives it, with `additionalProperties: false` wherever that is safe.

    What validates against it validates against the one given, and something does if it did there. A schema with
    references that cannot be followed is given back as it was.
    """
    places = _Places(schema)
    closed: Schema = _closed(schema, places.combined)
    return closed if places.are_known else schema


class _Places:
    """Which schemas within one hold for a value together with others: each is visited at most once as either."""

    def __init__(self, root: Schema) -> None:
        self.combined: set[int] = set()
        """Of schemas, by `id`, as long as the root lives."""
        self.are_known = True
        self._root = root
        seen: set[tuple[int, bool]] = set()
        left: list[tuple[object, bool]] = [(root, False)]
        while left:
            schema, is_combined = left.pop()
            if not isinstance(schema, dict) or (id(schema), is_combined) in seen:
                continue
            seen.add((id(schema), is_combined))
            if is_combined:
                self.combined.add(id(schema))
            left += self._inside(schema, is_combined=is_combined)

    def _inside(self, schema: Schema, *, is_combined: bool) -> Iterator[tuple[object, bool]]:
        """The schemas that this one holds or leads to, and whether others hold beside them."""
        if schema is not self._root and not schema.keys().isdisjoint({"$id", "id", "$anchor"}):
            self.are_known = False  # a $ref may mean something else from here on
        for keyword, value in schema.items():
            is_shared = is_combined or _is_shared(schema, keyword)
            if keyword == "$ref":
                yield self._target(value), is_shared
            elif keyword in ("$defs", "definitions"):
                continue  # they hold where a $ref leads to them
            else:
                yield from ((inner, is_shared) for inner in _schemas(keyword, value))

    def _target(self, reference: object) -> object:
        found = target_of(self._root, reference) if isinstance(reference, str) else None
        if found is None:
            self.are_known = False
        return found


def _is_shared(schema: Schema, keyword: str) -> bool:
    """Whether what stands under this keyword of a schema holds together with another part of it."""
    if _num_parts(schema) > 1 or (keyword == "oneOf" and not _differ_in_type(schema["oneOf"])):
        return True
    return keyword in ("properties", "patternProperties") and "patternProperties" in schema


def _num_parts(schema: Schema) -> int:
    """How many independent parts of a schema say what a value may hold; its type alone is none."""
    parts = sum(keyword in schema for keyword in ("$ref", "anyOf", "oneOf", "const", "enum"))
    return parts + len(schema.get("allOf", ())) + (not schema.keys().isdisjoint(_ON_CONTENT))


def _differ_in_type(schemas: list[object]) -> bool:
    """Whether each of a oneOf's schemas is for values of another type: narrowed ones then still hold one by one.

    The others could not stay one of several: what a narrower one alone allows, another as it was may have allowed too.
    """
    types = [schema.get("type") if isinstance(schema, dict) else None for schema in schemas]
    names = ["number" if name == "integer" else name for name in types if isinstance(name, str)]
    return len(names) == len(set(names)) == len(schemas)


def _schemas(keyword: str, value: Any) -> Iterator[object]:
    if keyword in MAPS_OF_SCHEMAS:
        yield from value.values()
    elif keyword in LISTS_OF_SCHEMAS or (keyword == "items" and isinstance(value, list)):
        yield from value
    elif keyword in SCHEMAS:
        yield value


def _closed(schema: Any, combined: set[int]) -> Any:
    """A copy, with its inner schemas; true and false as they are. `combined` knows the schemas of the original."""
    if isinstance(schema, bool):
        return schema
    copy: Schema = {}
    for keyword, value in schema.items():
        if keyword in MAPS_OF_SCHEMAS:
            copy[keyword] = {name: _closed(inner, combined) for name, inner in value.items()}
        elif keyword in LISTS_OF_SCHEMAS or (keyword == "items" and isinstance(value, list)):
            copy[keyword] = [_closed(inner, combined) for inner in value]
        else:
            copy[keyword] = _closed(value, combined) if keyword in SCHEMAS else value
    if id(schema) not in combined and _can_be_closed(schema):
        copy["additionalProperties"] = False
    return copy


def _can_be_closed(schema: Schema) -> bool:
    """Whether a schema names properties, and all that it asks for are among them."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not schema.keys().isdisjoint(_OPENING):
        return False
    required, least = schema.get("required", []), schema.get("minProperties", 0)
    if not isinstance(required, list) or not isinstance(least, int):
        return False
    return all(isinstance(name, str) and name in properties for name in required) and least <= len(properties)
