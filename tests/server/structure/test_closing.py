"""Which objects are closed, and that closing neither lets a wrong answer through nor leaves none at all."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from adapters.tool_turns import FunctionTool
from server.text.structure.closing import with_closed_objects
from server.text.structure.compiler import GrammarCompiler
from server.text.structure.json_schema import SchemaReader, compact
from server.text.structure.structures import JsonSchema, ToolCalls
from server.text.structure.trial_program import parser_limits, problem_of
from server.text.tools.definitions import ToolChoice, ToolChoiceMode
from tests.server.structure.sampling import TINY_VOCAB_SIZE, follow, tiny_compiler, tiny_random_model
from tests.tiny import tiny_tokenizer

NAME = {"type": "string", "maxLength": 3}
PERSON = {"type": "object", "properties": {"name": NAME}, "required": ["name"]}
EXTRA = '{"name":"x","more":1}'


def refers(**more: Any) -> dict[str, Any]:
    return {"$ref": "#/$defs/Person", "$defs": {"Person": PERSON}} | more


@pytest.fixture
async def compiler() -> AsyncGenerator[GrammarCompiler]:
    compiler = tiny_compiler()
    yield compiler
    compiler.close()


CLOSED: dict[str, dict[str, Any]] = {
    "named properties": PERSON,
    "no required ones": {"properties": {"name": NAME}},
    "several types": PERSON | {"type": ["object", "null"]},
    "by reference": refers(),
    "described": refers(description="A person.", title="Person"),
    "old pydantic": {"allOf": [{"$ref": "#/definitions/P"}], "definitions": {"P": PERSON}},
    "or null": {"anyOf": [{"$ref": "#/$defs/Person"}, {"type": "null"}], "$defs": {"Person": PERSON}},
    "one of two types": {"oneOf": [PERSON, {"type": "string"}]},
    "told apart": {
        "oneOf": [
            {"type": "object", "properties": {"k": {"const": "a"}, "name": NAME}, "required": ["k"]},
            {"type": "object", "properties": {"k": {"const": "b"}}, "required": ["k"]},
        ]
    },
}
OPEN: dict[str, dict[str, Any]] = {
    "no named properties": {"type": "object"},
    "said to be open": PERSON | {"additionalProperties": True},
    "said to be of integers": PERSON | {"additionalProperties": {"type": "integer"}},
    "patterns": PERSON | {"patternProperties": {"^m": {"type": "integer"}}},
    "required but not named": PERSON | {"required": ["name", "more"]},
    "more than are named": PERSON | {"minProperties": 2},
    "all of two": {"allOf": [PERSON, {"properties": {"more": {"type": "integer"}}, "required": ["more"]}]},
    "beside all of": PERSON | {"allOf": [{"required": ["more"]}]},
    "beside any of": PERSON | {"anyOf": [{"required": ["more"]}, {"required": ["less"]}]},
    "beside a reference": refers(properties={"more": {"type": "integer"}}, required=["more"]),
    "reference to one that is used with others": {
        "anyOf": [{"$ref": "#/$defs/Person"}, refers(required=["more"]) | {"$defs": {}}],
        "$defs": {"Person": PERSON},
    },
    "one of two that overlap": {"oneOf": [PERSON, {"type": "object", "required": ["less"]}]},
    "constant": {"properties": {"name": NAME}, "enum": [{"name": "x", "more": 1}]},
    "a reference with an id of its own": {"$defs": {"Person": PERSON | {"$id": "#/x"}}, "$ref": "#/$defs/Person"},
}


@pytest.mark.parametrize("name", CLOSED)
async def test_named_properties_are_all_there_are(compiler: GrammarCompiler, name: str) -> None:
    schema = CLOSED[name]
    answer = '{"k":"a","name":"x"}' if name == "told apart" else '{"name":"x"}'
    for text, is_allowed in ((answer, True), (answer.replace("}", ',"more":1}'), False)):
        constraint = await compiler.compile(JsonSchema(schema))
        assert follow(constraint, text, tiny_tokenizer(), TINY_VOCAB_SIZE) == is_allowed


@pytest.mark.parametrize("name", OPEN)
def test_what_holds_with_others_or_asks_for_more_stays_open(name: str) -> None:
    read = SchemaReader("schema", is_strict=False, max_depth=32).read(OPEN[name])
    assert with_closed_objects(read) == read


async def test_inner_objects_are_closed_and_the_schema_is_left_as_it_was(compiler: GrammarCompiler) -> None:
    schema = {"type": "object", "properties": {"all": {"type": "array", "items": PERSON}}, "required": ["all"]}
    before = json.dumps(schema)
    for text, is_allowed in (('{"all":[{"name":"x"}]}', True), (f'{{"all":[{EXTRA}]}}', False)):
        constraint = await compiler.compile(JsonSchema(schema))
        assert follow(constraint, text, tiny_tokenizer(), TINY_VOCAB_SIZE) == is_allowed
    assert json.dumps(schema) == before


async def test_arguments_of_a_call_are_closed(compiler: GrammarCompiler) -> None:
    tools = (FunctionTool("find", parameters=PERSON), FunctionTool("now", parameters={"properties": {}}))
    for name, arguments, is_allowed in (
        ("find", '{"name": "x"}', True),
        ("find", '{"name": "x", "more": 1}', False),
        ("now", "{}", True),
        ("now", '{"more": 1}', False),
    ):
        structure = ToolCalls.asked(tools, ToolChoice(ToolChoiceMode.REQUIRED))
        assert structure is not None
        text = f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'
        constraint = await compiler.compile(structure)
        assert follow(constraint, text, tiny_tokenizer(), TINY_VOCAB_SIZE) == is_allowed


async def test_random_answers_of_open_schemas_validate(compiler: GrammarCompiler) -> None:
    for name, schema in (CLOSED | OPEN).items():
        if name in ("one of two that overlap", "a reference with an id of its own", "required but not named"):
            continue  # cannot be enforced, or has no end
        for seed in range(3):
            drawn = tiny_random_model().answer(await compiler.compile(JsonSchema(schema)), seed=seed, max_tokens=300)
            if drawn.is_complete:
                jsonschema.validate(json.loads(drawn.text), schema)


def combined(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Schemas around others, in all the ways in which they may hold together."""
    names = st.sampled_from("abc")
    objects = st.builds(
        lambda properties, required: {"properties": properties, "required": sorted(required)},
        st.dictionaries(names, inner, max_size=2),
        st.sets(names, max_size=2),
    )
    lists = st.lists(inner | objects, min_size=1, max_size=2)
    choices = st.builds(
        lambda keyword, schemas: {keyword: schemas}, st.sampled_from(["anyOf", "allOf", "oneOf"]), lists
    )
    return objects | choices | st.builds(lambda one, other: one | other, objects, choices)


PLAIN: list[dict[str, Any]] = [{"type": "integer"}, {"type": "object"}, {"const": {"a": 1, "b": 2}}]
SCHEMATA = st.recursive(st.sampled_from([*PLAIN, {"$ref": "#/$defs/x"}]), combined, max_leaves=6)


@given(root=combined(SCHEMATA), definition=combined(st.sampled_from(PLAIN)))
def test_what_can_be_satisfied_still_can(root: dict[str, Any], definition: dict[str, Any]) -> None:
    schema = SchemaReader("s", is_strict=False, max_depth=32).read(
        root | {"type": "object", "$defs": {"x": definition}}
    )
    if not problem_with(schema):
        assert not problem_with(with_closed_objects(schema))


def problem_with(schema: dict[str, Any]) -> str:
    source = json.dumps({"grammars": [{"json_schema": compact(schema)}]})
    return problem_of(LLMatcher(LLTokenizer("byte"), source, log_level=0, limits=parser_limits()))
