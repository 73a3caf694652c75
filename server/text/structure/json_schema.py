"""Which JSON schemas can be enforced, and how they are put to llguidance. Knows no grammar and no tokenizer.

The keywords are those of JSON Schema 2020-12 and of the drafts before it (https://json-schema.org/specification).
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from server.text.structure.errors import StructureInvalid
from server.text.structure.formats import FORMATS, PATTERNS
from server.text.structure.keywords import LISTS_OF_SCHEMAS, MAPS_OF_SCHEMAS, SCHEMAS, Schema, target_of

_VALUES = frozenset(
    {
        *("$ref", "const", "enum", "type", "minItems", "maxItems", "required", "minProperties", "maxProperties"),
        *("minLength", "maxLength", "pattern", "format"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    }
)
_WITHOUT_EFFECT = frozenset(
    {
        *("$schema", "$id", "id", "$anchor", "$comment", "title", "description", "default", "examples", "deprecated"),
        *("readOnly", "writeOnly", "contentMediaType", "contentEncoding", "contentSchema"),
    }
)
_NOT_ENFORCED = frozenset(
    {
        *("not", "if", "then", "else", "uniqueItems", "contains", "minContains", "maxContains", "propertyNames"),
        *("dependentRequired", "dependentSchemas", "dependencies", "unevaluatedItems", "unevaluatedProperties"),
        *("$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$vocabulary"),
    }
)
_COMPACT = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
_SPACED = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}


class SchemaReader:
    """Checks the schema of one field, and rewrites what means the same but would not be understood."""

    def __init__(self, field: str, *, is_strict: bool, max_depth: int) -> None:
        self._field = field
        self._is_strict = is_strict
        self._max_depth = max_depth
        self._root: Mapping[str, Any] = {}

    def read(self, schema: Mapping[str, Any]) -> Schema:
        """The schema to be compiled. Raises StructureInvalid, which says where in the schema the fault is."""
        self._root = schema
        return self._object(schema, "$", 1)

    def _schema(self, schema: object, place: str, depth: int) -> Schema | bool:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, Mapping):
            raise self._invalid(place, "should be a schema: an object, true or false")
        return self._object(schema, place, depth)

    def _object(self, schema: Mapping[str, Any], place: str, depth: int) -> Schema:
        if depth > self._max_depth:
            raise StructureInvalid(self._field, f"nests deeper than {self._max_depth} schemas")
        read: Schema = {}
        for keyword, value in schema.items():
            if keyword == "oneOf" and self._are_told_apart(value):
                keyword = "anyOf"
                if "anyOf" in schema:
                    raise self._invalid(place, "has both anyOf and oneOf")
            read |= self._keyword(keyword, value, place, depth)
        self._check_min_properties(schema, place)
        return _with_pattern(read, schema.get("format"))

    def _keyword(self, keyword: str, value: Any, place: str, depth: int) -> Schema:
        """What becomes of one keyword; nothing if it has no effect."""
        inside = f"{place}.{keyword}"
        if keyword in MAPS_OF_SCHEMAS:
            return {keyword: self._map(value, inside, depth)}
        if keyword in LISTS_OF_SCHEMAS or (keyword == "items" and isinstance(value, list)):
            return {keyword: self._list(value, inside, depth)}
        if keyword in SCHEMAS:
            return {keyword: self._schema(value, inside, depth + 1)}
        if keyword in _NOT_ENFORCED:
            if _is_trivial(keyword, value):
                return {}
            raise self._invalid(place, f"{keyword} cannot be enforced")
        if keyword in _VALUES:
            return self._value(keyword, value, inside)
        if keyword in _WITHOUT_EFFECT:
            return {keyword: value} if keyword in ("$schema", "$id", "id", "$anchor") else {}
        if self._is_strict:
            raise self._invalid(place, f"{keyword[:64]!r} is no keyword of JSON Schema")
        return {} if keyword == "x-guidance" else {keyword: value}  # kept, since a $ref may lead into it

    def _map(self, value: object, place: str, depth: int) -> Schema:
        if not isinstance(value, Mapping):
            raise self._invalid(place, "should be an object of schemas")
        return {name: self._schema(schema, f"{place}.{name}", depth + 1) for name, schema in value.items()}

    def _list(self, value: object, place: str, depth: int) -> list[Schema | bool]:
        if not isinstance(value, list):
            raise self._invalid(place, "should be a list of schemas")
        return [self._schema(schema, f"{place}.{index}", depth + 1) for index, schema in enumerate(value)]

    def _value(self, keyword: str, value: Any, place: str) -> Schema:
        if keyword == "$ref" and not (isinstance(value, str) and value.startswith("#")):
            raise self._invalid(place, "should lead to a place in this schema: '#', '#/$defs/…'")
        if keyword == "format" and not (isinstance(value, str) and value in FORMATS):
            if self._is_strict:
                raise self._invalid(place, f"cannot be enforced; those that can: {', '.join(sorted(FORMATS))}")
            return {}
        if keyword == "format" and value in PATTERNS:
            return {}  # see `_with_pattern`
        return {keyword: value}

    def _check_min_properties(self, schema: Mapping[str, Any], place: str) -> None:
        """A grammar does not see that two additional properties have the same name, so it can count on one only."""
        least, required = schema.get("minProperties", 0), schema.get("required", [])
        num_required = len(required) if isinstance(required, list) else 0
        if isinstance(least, int) and least > num_required + 1:
            raise self._invalid(f"{place}.minProperties", "over the number of required properties cannot be enforced")

    def _are_told_apart(self, schemas: object) -> bool:
        """Whether at most one of a oneOf's schemas can hold, by a required property with a constant of its own.

        Unions with a discriminator look like that; llguidance sees it where no $ref stands between.
        """
        if not isinstance(schemas, list):
            return False
        constants = [_constants(self._resolved(schema)) for schema in schemas]
        names = set.intersection(*map(set, constants)) if constants else set()
        return any(len({found[name] for found in constants}) == len(constants) for name in names)

    def _resolved(self, schema: object) -> object:
        """The schema, or what its $ref leads to if that is all it has."""
        if not isinstance(schema, Mapping) or not isinstance(schema.get("$ref"), str) or len(schema) > 1:
            return schema
        return target_of(self._root, schema["$ref"])

    def _invalid(self, place: str, problem: str) -> StructureInvalid:
        shown = place if len(place) <= 200 else f"{place[:200]}…"
        return StructureInvalid(self._field, f"{shown}: {problem}")


def compact(schema: Schema) -> Schema:
    """The schema with llguidance's options for JSON without white space."""
    return schema | {"x-guidance": _COMPACT}


def spaced(schema: Schema) -> Schema:
    """The schema with llguidance's options for JSON with at most one space behind commas and colons."""
    return schema | {"x-guidance": _SPACED}


def json_text(value: object, field: str, max_bytes: int) -> str:
    """Compact JSON in ASCII. Raises StructureInvalid if it is too long, too deep for Python, or no JSON."""
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError, TypeError):
        raise StructureInvalid(field, "cannot be written as JSON") from None
    if len(text) > max_bytes:
        raise StructureInvalid(field, f"has {len(text)} bytes of JSON; at most {max_bytes} are allowed")
    return text


def _with_pattern(read: Schema, text_format: object) -> Schema:
    """The schema with the pattern of its format, beside its own pattern if it has one."""
    pattern = PATTERNS.get(text_format) if isinstance(text_format, str) else None
    if pattern is None:
        return read
    if "pattern" not in read:
        return read | {"pattern": pattern}
    return read | {"allOf": [*read.get("allOf", []), {"pattern": pattern}]}


def _is_trivial(keyword: str, value: object) -> bool:
    """Whether a keyword that is not enforced asks for nothing."""
    if keyword == "uniqueItems":
        return value is False
    if keyword == "propertyNames":
        return value in (True, {}, {"type": "string"})
    return keyword in ("unevaluatedItems", "unevaluatedProperties") and value in (True, {})


def _constants(schema: object) -> dict[str, str]:
    """Required properties of an object's schema that have one text as their only value."""
    if not isinstance(schema, Mapping):
        return {}
    properties, required = schema.get("properties"), schema.get("required")
    if schema.get("type") != "object" or not isinstance(properties, Mapping) or not isinstance(required, list):
        return {}
    return {name: value for name in _texts(required) if (value := _constant(properties.get(name))) is not None}


def _texts(values: Iterable[object]) -> list[str]:
    return [value for value in values if isinstance(value, str)]


def _constant(schema: object) -> str | None:
    if not isinstance(schema, Mapping):
        return None
    values = schema.get("enum", [schema.get("const")])
    return values[0] if isinstance(values, list) and len(values) == 1 and isinstance(values[0], str) else None
