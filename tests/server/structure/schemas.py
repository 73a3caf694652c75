"""JSON schemas of many kinds, each of which can be enforced."""

from typing import Any

_ADDRESS = {
    "type": "object",
    "properties": {"street": {"type": "string", "maxLength": 20}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}},
    "required": ["street", "zip"],
    "additionalProperties": False,
}
_NODE = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
    "required": ["value", "next"],
    "additionalProperties": False,
}


def closed(*, required: bool = True, **properties: Any) -> dict[str, Any]:
    """An object with these properties and no others."""
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | {"required": list(properties)} if required else schema


def closed_names(properties: dict[str, Any]) -> dict[str, Any]:
    """The same, for names that are none in Python."""
    return closed(required=True) | {"properties": properties, "required": list(properties)}


def _cat_or_dog() -> dict[str, Any]:
    cat = closed(kind={"const": "cat"}, lives={"type": "integer", "minimum": 0, "maximum": 9})
    dog = closed(kind={"enum": ["dog"]}, barks={"type": "boolean"})
    return {
        "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
        "discriminator": {"propertyName": "kind"},
        "$defs": {"Cat": cat, "Dog": dog},
    }


SCHEMAS: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "any": {},
    "several types": {"type": ["string", "integer", "null"]},
    "enum": {"enum": ["red", "green", 'with "quotes" and \\', "日本", 1, None, True]},
    "const": {"const": {"a": [1, "two", None], "b": "\n"}},
    "short string": {"type": "string", "minLength": 2, "maxLength": 6},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{2,4}$"},
    "unanchored pattern": {"type": "string", "pattern": "ab+c", "maxLength": 40},
    "pattern with a slash": {"type": "string", "pattern": "^a/b\\.[cd]$"},
    "date": {"type": "string", "format": "date"},
    "date-time": {"type": "string", "format": "date-time"},
    "email": {"type": "string", "format": "email"},
    "ipv4": {"type": "string", "format": "ipv4"},
    "ipv6": {"type": "string", "format": "ipv6"},
    "uuid": {"type": "string", "format": "uuid"},
    "bounded integer": {"type": "integer", "minimum": -17, "maximum": 250},
    "exclusive bounds": {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 3},
    "bounded number": {"type": "number", "minimum": 0.25, "maximum": 1.5},
    "negative number": {"type": "number", "exclusiveMaximum": 0},
    "multiple": {"type": "integer", "minimum": 0, "maximum": 100, "multipleOf": 5},
    "array": {"type": "array", "items": {"type": "integer"}},
    "array of 2 to 4": {"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 2, "maxItems": 4},
    "empty array": {"type": "array", "maxItems": 0},
    "tuple": {
        "type": "array",
        "prefixItems": [{"type": "string"}, {"type": "boolean"}],
        "items": False,
        "minItems": 2,
    },
    "array of arrays": {"type": "array", "items": {"type": "array", "items": {"type": "null"}, "maxItems": 3}},
    "any object": {"type": "object"},
    "closed object": closed(a={"type": "string"}, b={"type": "integer"}),
    "optional properties": closed(required=False, a={"type": "integer"}, b={"type": "null"}, c={"type": "boolean"}),
    "some required": closed(required=False, a={"type": "integer"}, b={"type": "null"}) | {"required": ["b"]},
    "map": {"type": "object", "additionalProperties": {"type": "integer"}},
    "map of few": {
        "type": "object",
        "additionalProperties": {"type": "integer"},
        "minProperties": 1,
        "maxProperties": 2,
    },
    "pattern properties": {
        "type": "object",
        "patternProperties": {"^x_[a-z]+$": {"type": "boolean"}},
        "additionalProperties": False,
    },
    "nested": closed(person=closed(name={"type": "string"}, address=_ADDRESS), tags={"type": "array", "items": {}}),
    "definitions": closed(home={"$ref": "#/$defs/address"}, work={"$ref": "#/$defs/address"})
    | {"$defs": {"address": _ADDRESS}},
    "old definitions": closed(home={"$ref": "#/definitions/address"}) | {"definitions": {"address": _ADDRESS}},
    "recursion": {"$ref": "#/$defs/node", "$defs": {"node": _NODE}},
    "any of": {
        "anyOf": [{"type": "integer"}, closed(a={"type": "string"}), {"type": "array", "items": {"type": "null"}}]
    },
    "all of": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 12}]},
    "one of": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
    "discriminated union": _cat_or_dog(),
    "optional by null": closed(a={"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "title": "A"}),
    "odd names": closed_names(
        {'with "quotes"': {"type": "integer"}, "日本": {"type": "null"}, "a b": {"type": "boolean"}}
    ),
}
