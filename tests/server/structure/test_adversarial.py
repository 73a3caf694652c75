"""Structures made to break a compiler: each is refused or compiled within 300 ms, none ends the process."""

import time
from typing import Any

import pytest

from server.text.structure.compiler import GrammarCompiler
from server.text.structure.errors import StructureError, StructureInvalid
from server.text.structure.structures import Choice, Grammar, JsonSchema, Regex, Structure
from tests.server.structure.sampling import tiny_compiler, tiny_random_model

SECONDS = 0.3
ATTEMPTS = 3
"""The cores are shared: what counts is the fastest of so many attempts."""


def nested(depth: int, *, inside: Any = None) -> dict[str, Any]:
    schema: dict[str, Any] = inside or {"type": "null"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def nested_value(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


EVIL: dict[str, Structure] = {
    "30,000 parentheses": Regex("(" * 30_000 + ")" * 30_000),
    "2,000 parentheses": Regex("(" * 2_000 + "a" + ")" * 2_000),
    "parentheses in a grammar": Grammar("start: " + "(" * 30_000 + '"a"' + ")" * 30_000),
    "parentheses in a pattern": JsonSchema({"type": "string", "pattern": "(" * 30_000}),
    "deep pattern": JsonSchema({"type": "string", "pattern": "(" * 5_000 + "a" + ")" * 5_000}),
    "deep schema": JsonSchema(nested(5_000)),
    "31 deep": JsonSchema(nested(31)),
    "deep value": JsonSchema({"const": nested_value(500)}),
    "very deep value": JsonSchema({"enum": [nested_value(90_000)]}),
    "quadratic backtracking": Regex("(a+)+$" * 20),
    "exponential backtracking": Regex("(a|a)*" * 100 + "b"),
    "exponential states": Regex("(a|b)*a" + "(a|b)" * 500),
    "many states": Regex("(.*a){20}" + ".{300}"),
    "huge count": Regex("a{1000000000}"),
    "nested counts": Regex("((((a{100}){100}){100}){100}){100}"),
    "counts of any": Regex("(.{1,1000}){1,1000}"),
    "count beyond numbers": Regex("a{99999999999999999999}"),
    "all of Unicode": Regex(r"(\p{L}|\p{N}|\w|[^a]){0,1000}" * 10),
    "long alternatives": Regex("|".join("x" * n for n in range(80))),
    "huge minLength": JsonSchema({"type": "string", "minLength": 1_000_000_000}),
    "huge maxLength": JsonSchema({"type": "string", "maxLength": 10**18}),
    "huge minItems": JsonSchema({"type": "array", "minItems": 10**9}),
    "huge maxItems": JsonSchema({"type": "array", "items": {"type": "integer"}, "maxItems": 10**9}),
    "negative counts": JsonSchema({"type": "array", "minItems": -5, "maxItems": -1}),
    "huge numbers": JsonSchema({"type": "integer", "minimum": 10**400}),
    "more digits than Python writes": JsonSchema({"type": "integer", "minimum": 10**5_000}),
    "wide integer": JsonSchema({"type": "integer", "minimum": -(10**300), "maximum": 10**300}),
    "fine number": JsonSchema({"type": "number", "minimum": 1e-300, "maximum": 1.0000000000000002}),
    "odd multiple": JsonSchema({"type": "number", "multipleOf": 1e-15}),
    "large multiple": JsonSchema({"type": "integer", "multipleOf": 999_999_937}),
    "itself": JsonSchema({"$ref": "#"}),
    "itself with a sibling": JsonSchema({"$ref": "#", "type": "object"}),
    "two refs in a circle": JsonSchema(
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
    ),
    "endless object": JsonSchema({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}),
    "all of itself": JsonSchema({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}),
    "doubling refs": JsonSchema(
        {
            "$ref": "#/$defs/d0",
            "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(60)}
            | {"d60": {"type": "integer"}},
        }
    ),
    "doubling properties": JsonSchema(
        {
            "$ref": "#/$defs/d0",
            "$defs": {
                f"d{i}": {
                    "type": "object",
                    "properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}, "b": {"$ref": f"#/$defs/d{i + 1}"}},
                }
                for i in range(60)
            }
            | {"d60": {"type": "integer"}},
        }
    ),
    "product of unions": JsonSchema(
        {
            "allOf": [
                {"anyOf": [{"type": "object", "properties": {f"p{i}_{j}": {}}} for j in range(6)]} for i in range(12)
            ]
        }
    ),
    "chain of 1,200 refs": JsonSchema(
        {
            "$ref": "#/$defs/0",
            "$defs": {
                str(i): {"type": "object", "properties": {"a": {"$ref": f"#/$defs/{i + 1}"}}} for i in range(1_200)
            }
            | {"1200": {"type": "integer"}},
        }
    ),
    "intersection of patterns": JsonSchema({"allOf": [{"type": "string", "pattern": f"{i}x{i}"} for i in range(30)]}),
    "300 patterns of properties": JsonSchema(
        {"type": "object", "patternProperties": {f"^p{i}$": {"type": "string"} for i in range(300)}}
    ),
    "deep terminal": Grammar(
        "start: A0\n" + "\n".join(f'A{i}: "x" (A{i + 1} | "z")* "y"' for i in range(2_000)) + '\nA2000: "a"'
    ),
    "external ref": JsonSchema({"$ref": "http://127.0.0.1:9/schema"}),
    "file ref": JsonSchema({"$ref": "file:///etc/passwd"}),
    "ref by its own id": JsonSchema({"$id": "http://127.0.0.1:9/x", "$ref": "#/nothing"}),
    "odd dialect": JsonSchema({"$schema": "http://127.0.0.1:9/dialect", "type": "string"}),
    "unknown keywords": JsonSchema({"frobnicate": nested_value(200), "type": "integer"}),
    "1,000 properties": JsonSchema(
        {"type": "object", "properties": {f"property_{i}": {"type": "string"} for i in range(1_000)}}
    ),
    "1,000 optional of any": JsonSchema({"type": "object", "properties": {f"p{i}": {} for i in range(1_000)}}),
    "10,000 values": JsonSchema({"enum": list(range(10_000))}),
    "3,000 texts": JsonSchema({"enum": [f"value number {i}" for i in range(3_000)]}),
    "values cut inside a character": JsonSchema({"type": ["日" * 60]}),
    "wrong types everywhere": JsonSchema(
        {"type": 3, "properties": {"a": None}, "required": "a", "enum": {}, "pattern": 7}
    ),
    "required of nothing": JsonSchema({"type": "object", "required": [None, 3, {}]}),
    "256 long choices": Choice(tuple(f"{i}" + "ab" * 120 for i in range(256))),
    "choice of all characters": Choice(tuple(chr(code) for code in range(1, 256))),
    "left recursion": Grammar('start: start "a" | start start | "a"'),
    "endless rule": Grammar('start: "a" start'),
    "ambiguous": Grammar('start: e\ne: e e | e e e | "a" | ""'),
    "empty repetition": Grammar('start: (""*)*'),
    "huge repetition": Grammar('start: ("a" "b"){1000000}'),
    "nested repetition": Grammar('start: ((((("a"{1,99}){1,99}){1,99}){1,99}){1,99}){1,99}'),
    "recursive terminal": Grammar("start: A\nA: B\nB: A"),
    "negations": Grammar("start: A\nA: " + " & ".join(f"~/(.|\\n)*{c}{c}(.|\\n)*/" for c in "abcdefghijklmnop")),
    "5,000 rules": Grammar("start: r0\n" + "\n".join(f"r{i}: r{i + 1}" for i in range(4_000)) + '\nr4000: "a"'),
    "schema in a grammar": Grammar('start: %json {"$ref": "http://127.0.0.1:9/"}'),
    "broken schema in a grammar": Grammar("start: %json {" * 20_000),
    "grammar by name": Grammar("start: @other"),
    "import": Grammar("%import common.NOTHING\nstart: NOTHING"),
    "json as a grammar": Grammar('{"grammars": [{"json_schema": {}}]}'),
    "bytes": Grammar("start: /\\xff\\xfe/"),
    "null byte": Grammar('start: "\x00"'),
    "gbnf in a circle": Grammar("root ::= a\na ::= b\nb ::= a"),
    "gbnf of many rules": Grammar("\n".join(f"r{i} ::= r{i + 1}" for i in range(500))),
    "deep gbnf": Grammar("root ::= " + "(" * 4_000),
    "chain of gbnf rules": Grammar(
        "root ::= r62\n" + "\n".join(f"r{i + 1} ::= r{i} r{i}" for i in range(62)) + '\nr0 ::= "a"'
    ),
}


async def attempt(compiler: GrammarCompiler, structure: Structure, number: int) -> float:
    await compiler.compile(Choice((f"attempt {number}",)))  # a process that was ended is started anew, outside the time
    before = time.perf_counter()
    refusal = await refusal_of(compiler, structure)
    seconds = time.perf_counter() - before
    assert refusal is None or refusal.startswith(structure.field)
    assert refusal is None or len(refusal) < 600
    return seconds


async def refusal_of(compiler: GrammarCompiler, structure: Structure) -> str | None:
    try:
        await compiler.compile(structure)
    except StructureInvalid as refusal:
        return str(refusal)
    return None


@pytest.mark.parametrize("name", EVIL)
async def test_refused_or_compiled_in_time(name: str) -> None:
    compiler = tiny_compiler()
    try:
        await compiler.prepare()
        assert min([await attempt(compiler, EVIL[name], number) for number in range(ATTEMPTS)]) < SECONDS
    finally:
        compiler.close()


@pytest.mark.parametrize("name", EVIL)
async def test_what_is_compiled_makes_tokens_or_fails_by_itself(name: str) -> None:
    compiler = tiny_compiler()
    try:
        constraint = await compiler.compile(EVIL[name])
        before = time.process_time()
        drawn = tiny_random_model().answer(constraint, seed=1, max_tokens=100)
        assert (time.process_time() - before) / max(drawn.num_tokens, 1) < 0.05
    except StructureError:
        pass
    finally:
        compiler.close()
