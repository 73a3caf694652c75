"""Random answers under a schema's constraint parse, validate, and have no white space between tokens of JSON."""

import json
import re
from collections.abc import AsyncGenerator
from contextlib import closing
from typing import Any

import jsonschema
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from adapters.home import home_directory
from server.text.structure.compiler import GrammarCompiler
from server.text.structure.structures import JsonObject, JsonSchema, Structure
from tests.server.structure.sampling import (
    TINY_VOCAB_SIZE,
    RandomModel,
    allowed_ids,
    follow,
    tiny_compiler,
    tiny_id,
    tiny_random_model,
)
from tests.server.structure.schemas import SCHEMAS, closed
from tests.tiny import EOS_ID, tiny_tokenizer

SEEDS = range(6)


@pytest.fixture
async def compiler() -> AsyncGenerator[GrammarCompiler]:
    compiler = tiny_compiler()
    yield compiler
    compiler.close()


def check(text: str, schema: dict[str, Any]) -> None:
    """The text is one JSON value, validates, and is as compact as JSON can be."""
    value = json.loads(text)
    jsonschema.validate(value, schema, format_checker=jsonschema.FormatChecker())
    outside_strings = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text)
    assert not re.search(r"\s", outside_strings)


@pytest.mark.parametrize("name", SCHEMAS)
async def test_bytes_validate(compiler: GrammarCompiler, name: str) -> None:
    schema = SCHEMAS[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    model = tiny_random_model()
    num_complete = 0
    for seed in SEEDS:
        drawn = model.answer(await compiler.compile(JsonSchema(schema)), seed=seed)
        num_complete += drawn.is_complete
        if drawn.is_complete:
            check(drawn.text, schema)
    assert num_complete > 0


async def test_any_object(compiler: GrammarCompiler) -> None:
    model = tiny_random_model()
    for seed in range(20):
        drawn = model.answer(await compiler.compile(JsonObject()), seed=seed)
        if drawn.is_complete:
            check(drawn.text, {"type": "object"})


@pytest.mark.parametrize(
    ("schema", "text", "is_allowed"),
    [
        (closed(a={"type": "integer"}), '{"a":1}', True),
        (closed(a={"type": "integer"}), '{"a": 1}', False),
        (closed(a={"type": "integer"}), ' {"a":1}', False),
        (closed(a={"type": "integer"}), '{"a":1}\n', False),
        (closed(a={"type": "integer"}), '{"a":1', False),
        (closed(a={"type": "integer"}), "{}", False),
        (closed(a={"type": "integer"}), '{"a":1.5}', False),
        (closed(a={"type": "integer"}), '{"a":1,"b":2}', False),
        ({"type": "object"}, '{"a":[1,{"b":null}],"c":"d e"}', True),
        ({"type": "object"}, "[]", False),
        ({"enum": ["ja", "nein"]}, '"ja"', True),
        ({"enum": ["ja", "nein"]}, '"j"', False),
        ({"type": "string", "format": "date"}, '"2026-02-28"', True),
        ({"type": "string", "format": "date"}, '"28.2.2026"', False),
        ({"type": "string"}, '"日本 é"', True),
    ],
)
async def test_what_is_allowed(
    compiler: GrammarCompiler, schema: dict[str, Any], text: str, *, is_allowed: bool
) -> None:
    constraint = await compiler.compile(JsonSchema(schema))
    assert follow(constraint, text, tiny_tokenizer(), TINY_VOCAB_SIZE) == is_allowed


async def test_ids_that_the_tokenizer_does_not_know_are_never_allowed(compiler: GrammarCompiler) -> None:
    constraint = await compiler.compile(JsonSchema({"type": "string"}))
    constraint.accept(tiny_id('"'))
    allowed = allowed_ids(constraint, TINY_VOCAB_SIZE)
    assert len(allowed) > 50
    assert max(allowed) < EOS_ID


async def test_after_the_end_there_are_stop_tokens_only(compiler: GrammarCompiler) -> None:
    constraint = await compiler.compile(JsonSchema({"const": 1}))
    constraint.accept(tiny_id("1"))
    assert allowed_ids(constraint, TINY_VOCAB_SIZE) == [EOS_ID]
    constraint.accept(EOS_ID)
    assert allowed_ids(constraint, TINY_VOCAB_SIZE) == [EOS_ID]


DATES = {
    "2024-02-29": True,
    "2000-02-29": True,
    "2023-02-29": False,
    "1900-02-29": False,
    "2023-04-31": False,
    "0000-01-01": False,
    "9999-12-31": True,
}


@pytest.mark.parametrize("date", DATES)
async def test_dates_are_of_the_calendar(compiler: GrammarCompiler, date: str) -> None:
    for text_format, text in (
        ("date", date),
        ("date-time", f"{date}T23:59:59.5+01:00"),
        ("date-time", f"{date}T00:00:00Z"),
    ):
        for schema in ({"format": text_format}, {"format": text_format, "pattern": "^[0-9]"}):
            constraint = await compiler.compile(JsonSchema({"type": "string"} | schema))
            assert follow(constraint, f'"{text}"', tiny_tokenizer(), TINY_VOCAB_SIZE) == DATES[date]


@pytest.mark.slow
async def test_tokens_of_a_real_vocabulary_validate() -> None:
    """They end in the middle of names, numbers and characters."""
    tokenizer = AutoTokenizer.from_pretrained(home_directory() / "models" / "smollm2-135m-instruct")
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    vocab_size = len(tokenizer)
    compiler = GrammarCompiler(tokenizer, vocab_size, stop_token_ids=[tokenizer.eos_token_id])
    model = RandomModel(tokenizer, vocab_size, [tokenizer.eos_token_id])
    structures: list[tuple[Structure, dict[str, Any]]] = [
        (JsonObject(), {"type": "object"}),
        *((JsonSchema(schema), schema) for schema in SCHEMAS.values()),
    ]
    with closing(compiler):
        for structure, schema in structures:
            num_complete = 0
            for seed in range(8):
                drawn = model.answer(await compiler.compile(structure), seed=seed, max_tokens=300)
                num_complete += drawn.is_complete
                if drawn.is_complete:
                    check(drawn.text, schema)
            assert num_complete > 0, schema
