"""GrammarCompiler: texts that match, limits, one cache for all requests, and an event loop that is never held up."""

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from server.text.structure.cache import CompiledGrammar, GrammarCache
from server.text.structure.compiler import GrammarCompiler
from server.text.structure.errors import StructureBusy, StructureFailed, StructureInvalid, StructureUnsupported
from server.text.structure.limits import StructureLimits
from server.text.structure.structures import Choice, Grammar, JsonObject, JsonSchema, Regex, Structure
from tests.server.structure.sampling import TINY_VOCAB_SIZE, follow, tiny_compiler, tiny_id, tiny_random_model
from tests.tiny import EOS_ID, tiny_tokenizer

ARITHMETIC = """
start: sum
sum: product ("+" product)*
product: NUMBER ("*" NUMBER)*
NUMBER: /[1-9][0-9]{0,2}/
"""
GBNF = """
root ::= "yes " name | "no"
name ::= [a-z]+ ("-" [a-z]+)?
"""


@pytest.fixture
async def compiler() -> AsyncGenerator[GrammarCompiler]:
    compiler = tiny_compiler()
    yield compiler
    compiler.close()


async def allows(compiler: GrammarCompiler, structure: Structure, text: str) -> bool:
    return follow(await compiler.compile(structure), text, tiny_tokenizer(), TINY_VOCAB_SIZE)


@pytest.mark.parametrize(
    ("structure", "text", "is_allowed"),
    [
        (Regex("[a-c]{2}"), "ab", True),
        (Regex("[a-c]{2}"), "a", False),
        (Regex("[a-c]{2}"), "abc", False),
        (Regex("^[a-c]{2}$"), "ab", True),
        (Regex(r"a\$"), "a$", True),
        (Regex(r"a/b\/c"), "a/b/c", True),
        (Regex("(?i)yes|no"), "YES", True),
        (Regex("日+"), "日日", True),
        (Choice(("yes", "no")), "yes", True),
        (Choice(("yes", "no")), "ye", False),
        (Choice(("a", "ab", "ab")), "a", True),
        (Choice(("a", "ab", "ab")), "ab", True),
        (Choice(('."\\\n/é日{2}',)), '."\\\n/é日{2}', True),
        (Choice((".",)), "x", False),
        (Grammar(ARITHMETIC), "12+3*4", True),
        (Grammar(ARITHMETIC), "12+", False),
        (Grammar(GBNF), "yes anna-lena", True),
        (Grammar(GBNF), "no", True),
        (Grammar(GBNF), "yes", False),
    ],
)
async def test_texts_that_match(
    compiler: GrammarCompiler, structure: Structure, text: str, *, is_allowed: bool
) -> None:
    assert await allows(compiler, structure, text) == is_allowed


async def test_random_texts_match_their_pattern(compiler: GrammarCompiler) -> None:
    pattern = r"[A-F0-9]{4}(-[a-z]+){1,3}|\d{2}:\d{2}"
    for seed in range(20):
        drawn = tiny_random_model().answer(await compiler.compile(Regex(pattern)), seed=seed)
        assert drawn.is_complete
        assert re.fullmatch(pattern, drawn.text)


@pytest.mark.parametrize(
    ("structure", "field", "words"),
    [
        (Regex("a" * 4097), "structured_outputs.regex", "4096 are allowed"),
        (Regex("(" * 33 + "a" + ")" * 33), "structured_outputs.regex", "at most 32"),
        (Regex(""), "structured_outputs.regex", "empty"),
        (Regex("(a"), "structured_outputs.regex", "group"),
        (Regex(r"(a)\1"), "structured_outputs.regex", "backreference"),
        (Regex("a(?=b)"), "structured_outputs.regex", "look-around"),
        (Regex("a\nb"), "structured_outputs.regex", "line break"),
        (Regex("\ud800"), "structured_outputs.regex", "surrogate"),
        (Choice(()), "structured_outputs.choice", "0 entries"),
        (Choice(("a", "")), "structured_outputs.choice.1", "empty"),
        (Choice(tuple(map(str, range(257)))), "structured_outputs.choice", "257 entries"),
        (Choice(("a" * 70_000,)), "structured_outputs.choice", "65536 are allowed"),
        (Grammar("start: " + '"a"' * 30_000), "structured_outputs.grammar", "65536 are allowed"),
        (Grammar("start: " + "(" * 33 + '"a"' + ")" * 33), "structured_outputs.grammar", "at most 32"),
        (Grammar("start: nobody"), "structured_outputs.grammar", "nobody"),
        (Grammar("begin: 'a'"), "structured_outputs.grammar", ""),
        (Grammar("start: <|im_end|>"), "structured_outputs.grammar", "special token"),
        (Grammar('start[max_tokens=3]: "a"'), "structured_outputs.grammar", "max_tokens"),
        (Grammar('start: "a" %json {"type": "integer"}'), "structured_outputs.grammar", "%json"),
        (Grammar("start: @other"), "structured_outputs.grammar", "@o"),
        (Grammar('root ::= ("a"'), "structured_outputs.grammar", "GBNF"),
        (Grammar("root ::= " + '"a"' * 5_000), "structured_outputs.grammar", "8192 are allowed"),
        (JsonSchema({"type": "strin"}), "response_format.json_schema.schema", "strin"),
        (JsonSchema({"description": "a" * 70_000}), "response_format.json_schema.schema", "65536 are allowed"),
        (JsonSchema({"not": {}}, field="text.format.schema"), "text.format.schema", "not cannot be enforced"),
    ],
)
async def test_what_is_refused_names_field_and_limit(
    compiler: GrammarCompiler, structure: Structure, field: str, words: str
) -> None:
    with pytest.raises(StructureInvalid) as refusal:
        await compiler.compile(structure)
    assert refusal.value.field == field
    assert str(refusal.value).startswith(f"{field}: ")
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"properties": {"a": {"items": {"uniqueItems": True}}}}, "$.properties.a.items: uniqueItems"),
        ({"if": {}, "then": {}}, "if cannot be enforced"),
        ({"$ref": "https://example.org/schema.json"}, "$.$ref"),
        ({"$ref": "other.json#/a"}, "$.$ref"),
        ({"properties": []}, "$.properties"),
        ({"anyOf": {}}, "$.anyOf"),
        ({"items": 3}, "$.items"),
        ({"type": "object", "minProperties": 3}, "$.minProperties"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"$ref": "#/$defs/none"}, "none"),
        ({"const": float("nan")}, "JSON"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, ""),
    ],
)
async def test_schemas_that_cannot_be_enforced(compiler: GrammarCompiler, schema: dict[str, Any], words: str) -> None:
    with pytest.raises(StructureInvalid) as refusal:
        await compiler.compile(JsonSchema(schema))
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimun": 3}, "'minimun' is no keyword"),
        ({"type": "string", "format": "password"}, "$.format"),
        ({"x-guidance": {"whitespace_flexible": True}, "type": "array"}, "x-guidance"),
    ],
)
async def test_strict_refuses_what_json_schema_lets_a_reader_ignore(
    compiler: GrammarCompiler, schema: dict[str, Any], words: str
) -> None:
    with pytest.raises(StructureInvalid) as refusal:
        await compiler.compile(JsonSchema(schema, is_strict=True))
    assert words in str(refusal.value)
    await compiler.compile(JsonSchema(schema))


async def test_options_of_the_library_are_not_the_clients(compiler: GrammarCompiler) -> None:
    schema = {"x-guidance": {"whitespace_flexible": True, "item_separator": ", "}, "type": "array"}
    assert not await allows(compiler, JsonSchema(schema), "[1, 2]")
    assert await allows(compiler, JsonSchema(schema), "[1,2]")


async def test_answers_of_one_grammar_do_not_know_each_other(compiler: GrammarCompiler) -> None:
    first = await compiler.compile(Choice(("ab",)))
    assert follow(first, "ab", tiny_tokenizer(), TINY_VOCAB_SIZE)
    assert follow(await compiler.compile(Choice(("ab",))), "ab", tiny_tokenizer(), TINY_VOCAB_SIZE)


async def test_a_token_that_is_not_allowed_fails_the_answer(compiler: GrammarCompiler) -> None:
    constraint = await compiler.compile(Choice(("ab",)))
    with pytest.raises(StructureFailed):
        constraint.accept(tiny_id("x"))


async def test_a_model_without_an_end_cannot_be_held_to_a_structure() -> None:
    compiler = GrammarCompiler(tiny_tokenizer(), TINY_VOCAB_SIZE, stop_token_ids=[TINY_VOCAB_SIZE + 1])
    with pytest.raises(StructureUnsupported):
        await compiler.compile(JsonObject())
    compiler.close()


async def test_several_stop_tokens() -> None:
    compiler = GrammarCompiler(tiny_tokenizer(), TINY_VOCAB_SIZE, stop_token_ids=[EOS_ID, 270])
    constraint = await compiler.compile(Choice(("a",)))
    constraint.accept(tiny_id("a"))
    constraint.accept(270)
    compiler.close()


SLOW = JsonSchema({"type": "object", "patternProperties": {f"^p{n}$": {"type": "string"} for n in range(600)}})
"""llguidance would take a minute."""


async def test_what_takes_too_long_is_ended_and_its_neighbours_are_not(compiler: GrammarCompiler) -> None:
    compiling = [asyncio.create_task(compiler.compile(SLOW)) for _ in range(3)]
    assert await allows(compiler, Choice(("a",)), "a")
    for task in compiling:
        with pytest.raises(StructureInvalid, match="takes longer to compile than 250 ms"):
            await task
    assert await allows(compiler, Choice(("b",)), "b")


async def test_what_overflows_a_stack_ends_nobody(compiler: GrammarCompiler) -> None:
    rules = "\n".join(f'r{n}: "x" (r{n + 1} | "z")' for n in range(2_000))
    for _ in range(2):
        with pytest.raises(StructureInvalid, match="too deep"):
            await compiler.compile(Grammar(f'start: r0\n{rules}\nr2000: "a"'))
    assert await allows(compiler, Choice(("a",)), "a")


async def test_who_waits_too_long_for_a_worker_is_told_so() -> None:
    limits = StructureLimits(wait_seconds=0.05, workers=1)
    compiler = GrammarCompiler(tiny_tokenizer(), TINY_VOCAB_SIZE, stop_token_ids=[EOS_ID], limits=limits)
    first = asyncio.create_task(compiler.compile(SLOW))
    await compiler.prepare()
    while not compiler._slots.locked():
        await asyncio.sleep(0.001)
    with pytest.raises(StructureBusy):
        await compiler.compile(JsonObject())
    with pytest.raises(StructureInvalid):
        await first
    compiler.close()


async def test_a_caller_that_leaves_gives_its_worker_back(compiler: GrammarCompiler) -> None:
    for _ in range(4):
        task = asyncio.create_task(compiler.compile(SLOW))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await allows(compiler, Choice(("a",)), "a")


async def test_the_event_loop_turns_while_grammars_are_compiled() -> None:
    limits = StructureLimits(compile_seconds=60)  # of wall time, of which a busy machine may take any part
    compiler = GrammarCompiler(tiny_tokenizer(), TINY_VOCAB_SIZE, stop_token_ids=[EOS_ID], limits=limits)
    # Turns are counted, not timed: a compiler on the loop's own thread would leave it one turn for each grammar.
    await compiler.prepare()
    schema = {"anyOf": [{"type": "object", "properties": {f"p{i}_{j}": {} for j in range(20)}} for i in range(50)]}
    compiling = [asyncio.create_task(compiler.compile(JsonSchema(schema | {"title": str(n)}))) for n in range(4)]
    turns = 0
    while not all(task.done() for task in compiling):
        await asyncio.sleep(0)
        turns += 1
    await asyncio.gather(*compiling)
    compiler.close()
    assert turns > 100 * len(compiling)


async def test_the_cache_is_bounded_in_bytes(compiler: GrammarCompiler) -> None:
    matcher = (await compiler.compile(Choice(("a",))))._matcher  # type: ignore[attr-defined]
    cache = GrammarCache(max_bytes=100)
    for name, size in (("a", 40), ("b", 40), ("a", 50), ("c", 30), ("d", 101)):
        cache.put(name, CompiledGrammar(matcher, size))
        cache.get("a")
    assert cache.get("b") is None
    assert cache.get("d") is None
    assert cache.get("a") is not None
    assert (len(cache), cache.num_bytes) == (2, 80)
