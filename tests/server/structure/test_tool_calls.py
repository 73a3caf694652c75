"""The grammar of calls: required, named and at will, one or several; random answers parse and validate."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from adapters.tool_turns import FunctionTool
from server.text.answer_events import ContentText, ToolCallArguments, ToolCallEnded, ToolCallStarted
from server.text.structure.compiler import GrammarCompiler
from server.text.structure.errors import StructureInvalid
from server.text.structure.structures import (
    Choice,
    Form,
    Grammar,
    JsonObject,
    JsonSchema,
    Regex,
    ToolCalls,
)
from server.text.tools.definitions import ToolChoice, ToolChoiceMode
from server.text.tools.form_or_calls import FormOrCallsParser
from server.text.tools.parser import ToolCallParser
from tests.server.structure.sampling import TINY_VOCAB_SIZE, follow, tiny_compiler, tiny_random_model
from tests.server.structure.schemas import closed
from tests.tiny import tiny_tokenizer

AUTO = ToolChoice(ToolChoiceMode.AUTO)
REQUIRED = ToolChoice(ToolChoiceMode.REQUIRED)
TOOLS = (
    FunctionTool("get", parameters=closed(city={"type": "string", "maxLength": 8}, days={"type": "integer"})),
    FunctionTool("get_all", parameters=closed(unit={"enum": ["C", "F"]})),
    FunctionTool("clock", parameters=closed()),
    FunctionTool("anything"),
)
GET = '<tool_call>\n{"name": "get", "arguments": {"city": "Rome", "days": 3}}\n</tool_call>'
GET_TIGHT = '<tool_call>\n{"name": "get", "arguments": {"city":"Rome","days":3}}\n</tool_call>'
GET_ALL = '<tool_call>\n{"name": "get_all", "arguments": {"unit": "C"}}\n</tool_call>'
SIZE = JsonSchema(closed(size={"enum": ["small", "large"]}))
CLOCK = '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'


@pytest.fixture(scope="module")
def compiler() -> Iterator[GrammarCompiler]:
    compiler = tiny_compiler()
    yield compiler
    compiler.close()


def calls_of(choice: ToolChoice, *, parallel: bool = True, form: Form | None = None) -> ToolCalls:
    structure = ToolCalls.asked(TOOLS, choice, parallel=parallel, form=form)
    assert structure is not None
    return structure


@pytest.mark.parametrize(
    ("structure", "text", "is_allowed"),
    [
        (calls_of(REQUIRED), GET, True),
        (calls_of(REQUIRED), GET_TIGHT, True),
        (calls_of(REQUIRED), CLOCK, True),
        (calls_of(REQUIRED), f"{GET}\n{GET_ALL}\n{CLOCK}", True),
        (calls_of(REQUIRED), f"{GET}{GET_ALL}", False),
        (calls_of(REQUIRED), "Hello", False),
        (calls_of(REQUIRED), f"Hello{GET}", False),
        (calls_of(REQUIRED), f"{GET}\nHello", False),
        (calls_of(REQUIRED), GET.replace("3", '"3"'), False),
        (calls_of(REQUIRED), GET.replace("get", "unknown"), False),
        (calls_of(REQUIRED), GET.replace(": ", ":  "), False),
        (calls_of(REQUIRED, parallel=False), GET, True),
        (calls_of(REQUIRED, parallel=False), f"{GET}\n{GET_ALL}", False),
        (calls_of(ToolChoice(ToolChoiceMode.REQUIRED, "get_all")), GET_ALL, True),
        (calls_of(ToolChoice(ToolChoiceMode.REQUIRED, "get_all")), GET, False),
        (calls_of(ToolChoice(ToolChoiceMode.REQUIRED, "get_all")), f"{GET_ALL}\n{GET_ALL}", False),
        (calls_of(AUTO), "", True),
        (calls_of(AUTO), "Hello, 日本 <b>there</b> {}\n\n<tool", True),
        (calls_of(AUTO), f"I will look.\n{GET}", True),
        (calls_of(AUTO), f"{GET}\n{GET_ALL}", True),
        (calls_of(AUTO), f"Look: {GET}\n{CLOCK}", True),
        (calls_of(AUTO), f"{GET} Done.", False),
        (calls_of(AUTO), "<tool_call>", False),
        (calls_of(AUTO), "The tag <tool_call> is odd", False),
        (calls_of(AUTO), GET.replace("3", '"3"'), False),
        (calls_of(AUTO, parallel=False), f"Look: {GET}", True),
        (calls_of(AUTO, parallel=False), f"{GET}\n{GET_ALL}", False),
    ],
)
async def test_what_is_allowed(compiler: GrammarCompiler, structure: ToolCalls, text: str, *, is_allowed: bool) -> None:
    assert follow(await compiler.compile(structure), text, tiny_tokenizer(), TINY_VOCAB_SIZE) == is_allowed


@pytest.mark.parametrize(
    ("structure", "text", "is_allowed"),
    [
        (calls_of(AUTO, form=SIZE), '{"size":"small"}', True),
        (calls_of(AUTO, form=SIZE), '{"size":"none"}', False),
        (calls_of(AUTO, form=SIZE), "Hello", False),
        (calls_of(AUTO, form=SIZE), GET, True),
        (calls_of(AUTO, form=SIZE), f"{GET}\n{GET_ALL}", True),
        (calls_of(AUTO, form=SIZE), GET.replace("3", '"3"'), False),
        (calls_of(AUTO, form=SIZE), f'{{"size":"small"}}\n{GET}', False),
        (calls_of(AUTO, form=SIZE), f'{GET}\n{{"size":"small"}}', False),
        (calls_of(AUTO, form=SIZE, parallel=False), GET, True),
        (calls_of(AUTO, form=SIZE, parallel=False), f"{GET}\n{GET_ALL}", False),
        (calls_of(AUTO, form=JsonObject()), f'{{"a":{json.dumps(GET)}}}', True),
        (calls_of(AUTO, form=Regex("(?s:.*)")), "<tool_cal and so on", True),
        (calls_of(AUTO, form=Regex("(?s:.*)")), "<tool_call> and so on", False),
        (calls_of(AUTO, form=Regex("(?s:.*)")), f"Look: {GET}", True),
        (calls_of(AUTO, form=Regex("(?s:.*)")), GET, True),
        (calls_of(AUTO, form=Regex("a*")), "", True),
        (calls_of(AUTO, form=Choice(("<tool_call>", "<tool>"))), "<tool>", True),
        (calls_of(AUTO, form=Choice(("<tool_call>", "<tool>"))), "<tool_call>", False),
        (calls_of(AUTO, form=Grammar('start: "<tool>" /[a-z]+/')), "<tool>x", True),
        (calls_of(AUTO, form=Grammar('start: "<tool>" /[a-z]+/')), GET, True),
        (calls_of(AUTO, form=Grammar('root ::= "x" | "y"')), "y", True),
        (calls_of(REQUIRED, form=SIZE), GET, True),
        (calls_of(REQUIRED, form=SIZE), '{"size":"small"}', False),
        (calls_of(ToolChoice(ToolChoiceMode.REQUIRED, "get"), form=SIZE), '{"size":"small"}', False),
    ],
)
async def test_calls_or_a_form(compiler: GrammarCompiler, structure: ToolCalls, text: str, *, is_allowed: bool) -> None:
    assert follow(await compiler.compile(structure), text, tiny_tokenizer(), TINY_VOCAB_SIZE) == is_allowed


@pytest.mark.parametrize("choice", [AUTO, REQUIRED])
@pytest.mark.parametrize(
    ("form", "words"),
    [
        (JsonSchema({"type": "nothing"}), "response_format.json_schema.schema: "),
        (JsonSchema({"not": {}}), "response_format.json_schema.schema: $: not cannot be enforced"),
        (Regex("("), "structured_outputs.regex: "),
        (Grammar("start: nothing"), "structured_outputs.grammar: "),
    ],
)
async def test_forms_beside_tools_that_cannot_be_are_named(
    compiler: GrammarCompiler, choice: ToolChoice, form: Form, words: str
) -> None:
    with pytest.raises(StructureInvalid) as refusal:
        await compiler.compile(calls_of(choice, form=form))
    assert str(refusal.value).startswith(words)


async def test_a_grammar_that_cannot_be_told_from_calls_is_refused(compiler: GrammarCompiler) -> None:
    form = Grammar("start: /(?s:.*)/")
    with pytest.raises(StructureInvalid, match=r"^structured_outputs.grammar: may begin with <tool_call>"):
        await compiler.compile(calls_of(AUTO, form=form))
    await compiler.compile(calls_of(REQUIRED, form=form))


async def test_random_answers_are_calls_or_of_the_form(compiler: GrammarCompiler) -> None:
    structure = calls_of(AUTO, form=SIZE)
    kinds = set()
    for seed in range(12):
        drawn = tiny_random_model().answer(await compiler.compile(structure), seed=seed)
        calls = ToolCallParser([tool.name for tool in TOOLS], is_constrained=True, may_be_text=False)
        parser = FormOrCallsParser(calls)
        events = [event for character in drawn.text for event in parser.decode(character)] + parser.flush()
        content = "".join(event.text for event in events if isinstance(event, ContentText))
        kinds.add(bool(content))
        assert bool(content) == (calls.num_calls == 0)
        if content:
            assert json.loads(content)["size"] in ("small", "large")
    assert kinds == {True, False}


@pytest.mark.parametrize("choice", [REQUIRED, ToolChoice(ToolChoiceMode.REQUIRED, "get")])
async def test_random_calls_validate(compiler: GrammarCompiler, choice: ToolChoice) -> None:
    structure = calls_of(choice)
    schemas: dict[str, Any] = {tool.name: tool.parameters or {"type": "object"} for tool in TOOLS}
    num_complete = 0
    for seed in range(12):
        drawn = tiny_random_model().answer(await compiler.compile(structure), seed=seed)
        parser = ToolCallParser(schemas, is_constrained=True, may_be_text=False)
        events = [event for character in drawn.text for event in parser.decode(character)] + parser.flush()
        names = [event.name for event in events if isinstance(event, ToolCallStarted)]
        ended = [event.index for event in events if isinstance(event, ToolCallEnded)]
        assert ended in ([*range(len(names))], [*range(len(names) - 1)])
        for index in ended:
            fragments = [e.fragment for e in events if isinstance(e, ToolCallArguments) and e.index == index]
            jsonschema.validate(json.loads("".join(fragments)), schemas[names[index]])
        if drawn.is_complete:
            num_complete += 1
            assert len(ended) == len(names) >= 1
    assert num_complete > 0


def test_what_tool_choice_asks_for() -> None:
    assert ToolCalls.asked(TOOLS, ToolChoice(ToolChoiceMode.NONE)) is None
    assert ToolCalls.asked((), AUTO) is None
    named = calls_of(ToolChoice(ToolChoiceMode.REQUIRED, "clock"))
    assert (named.functions, named.max_calls, named.is_required) == (TOOLS[2:3], 1, True)
    assert named.field_of(0) == "tools.2.function.parameters"
    assert calls_of(AUTO).field_of(1) == "tools.1.function.parameters"


@pytest.mark.parametrize(
    ("tools", "choice", "field"),
    [
        (TOOLS, ToolChoice(ToolChoiceMode.REQUIRED, "nobody"), "tool_choice.function.name"),
        ((), REQUIRED, "tool_choice"),
        ((*TOOLS, FunctionTool("get")), AUTO, "tools.4.function.name"),
    ],
)
def test_what_tool_choice_cannot_ask_for(tools: tuple[FunctionTool, ...], choice: ToolChoice, field: str) -> None:
    with pytest.raises(StructureInvalid) as refusal:
        ToolCalls.asked(tools, choice)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"type": "string"}, "tools.1.function.parameters: should be the schema of an object"),
        ({"type": "object", "not": {}}, "tools.1.function.parameters: $: not cannot be enforced"),
        ({"type": "object", "properties": {"a": {"pattern": "("}}}, "tools"),
        ({"description": "a" * 70_000}, "tools.1.function.parameters: has"),
    ],
)
async def test_parameters_that_cannot_be_enforced_are_named(
    compiler: GrammarCompiler, parameters: dict[str, Any], words: str
) -> None:
    structure = ToolCalls.asked((TOOLS[0], FunctionTool("bad", parameters=parameters)), AUTO)
    assert structure is not None
    with pytest.raises(StructureInvalid) as refusal:
        await compiler.compile(structure)
    assert str(refusal.value).startswith(words)


async def test_128_functions(compiler: GrammarCompiler) -> None:
    parameters = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(10)}}
    tools = [FunctionTool(f"function_{i}", parameters=parameters) for i in range(128)]
    structure = ToolCalls.asked(tools, AUTO)
    assert structure is not None
    text = '<tool_call>\n{"name": "function_77", "arguments": {"p3": "x"}}\n</tool_call>'
    assert follow(await compiler.compile(structure), text, tiny_tokenizer(), TINY_VOCAB_SIZE)
