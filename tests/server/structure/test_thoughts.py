"""Thoughts before forms and calls: what the grammar allows, and what is refused since it could not be told apart."""

from collections.abc import Iterator

import pytest

from adapters.hermes import CALL_CLOSE
from adapters.tool_turns import FunctionTool
from server.text.reader import AnswerReader
from server.text.reasoning import THINK_OPEN, Thoughts
from server.text.structure.compiler import GrammarCompiler
from server.text.structure.errors import StructureInvalid
from server.text.structure.structures import (
    Choice,
    Form,
    Grammar,
    JsonObject,
    JsonSchema,
    Regex,
    Structure,
    ToolCalls,
)
from server.text.tools.definitions import ToolChoice, ToolChoiceMode
from tests.server.structure.sampling import TINY_VOCAB_SIZE, follow, tiny_compiler, tiny_random_model
from tests.server.structure.schemas import closed
from tests.tiny import tiny_tokenizer

OK = JsonSchema(closed(ok={"type": "boolean"}))
TOOLS = (FunctionTool("f", parameters=closed(x={"type": "integer"})),)
CALL = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
NONE, POSSIBLE, OPEN = Thoughts.NONE, Thoughts.POSSIBLE, Thoughts.OPEN


def calls(mode: ToolChoiceMode = ToolChoiceMode.AUTO, form: Form | None = None) -> ToolCalls:
    structure = ToolCalls.asked(TOOLS, ToolChoice(mode), form=form)
    assert structure is not None
    return structure


AUTO, REQUIRED, EITHER = calls(), calls(ToolChoiceMode.REQUIRED), calls(form=OK)


@pytest.fixture(scope="module")
def compiler() -> Iterator[GrammarCompiler]:
    compiler = tiny_compiler()
    yield compiler
    compiler.close()


@pytest.mark.parametrize(
    ("structure", "thoughts", "text", "is_allowed"),
    [
        (OK, NONE, '{"ok":true}', True),
        (OK, NONE, '<think>a</think>\n\n{"ok":true}', False),
        (OK, POSSIBLE, '{"ok":true}', True),
        (OK, POSSIBLE, '<think>a {"ok":tru </thi <tool_call></think>\n\n{"ok":true}', True),
        (OK, POSSIBLE, '<think></think>\n\n{"ok":true}', True),
        (OK, POSSIBLE, '<think>a</think>{"ok":true}', False),
        (OK, POSSIBLE, '<think>a</think>\n\n\n{"ok":true}', False),
        (OK, POSSIBLE, '<think>a</think>\n\n{"ok":0}', False),
        (OK, POSSIBLE, '\n<think>a</think>\n\n{"ok":true}', False),
        (OK, POSSIBLE, "<think>a", False),
        (OK, POSSIBLE, "<think>a</think>", False),
        (OK, OPEN, 'a {"ok":true} </think>\n\n{"ok":true}', True),
        (OK, OPEN, '</think>\n\n{"ok":true}', True),
        (OK, OPEN, '{"ok":true}', False),
        (JsonObject(), POSSIBLE, '<think>a</think>\n\n{"</think>":"<think>"}', True),
        (Regex("(?s:.*)"), POSSIBLE, "<thin", True),
        (Regex("(?s:.*)"), POSSIBLE, "<think>a", False),
        (Regex("(?s:.*)"), POSSIBLE, "<think>a</think>\n\n\n b", True),
        (Regex("(?s:.*)"), OPEN, "a", False),
        (Regex("(?s:.*)"), OPEN, "a</think>\n\n<think>b", True),
        (Choice(("yes", "no", "<think>")), POSSIBLE, "no", True),
        (Choice(("yes", "no", "<think>")), POSSIBLE, "<think>", False),
        (Choice((" yes", " no")), POSSIBLE, "<think>a</think>\n\n no", True),
        (Grammar('start: "x"'), POSSIBLE, "<think>a</think>\n\nx", True),
        (Grammar("start: /(?s:.*)/"), OPEN, "a</think>\n\n<think>", True),
        (REQUIRED, POSSIBLE, CALL, True),
        (REQUIRED, POSSIBLE, f"<think>{CALL}</think>\n\n{CALL}", True),
        (REQUIRED, POSSIBLE, f"<think>{CALL}</think>\n\n", False),
        (REQUIRED, OPEN, f"a</think>\n\n{CALL}\n{CALL}", True),
        (REQUIRED, OPEN, CALL, False),
        (EITHER, POSSIBLE, f"<think><tool_call></think>\n\n{CALL}", True),
        (EITHER, POSSIBLE, '<think><tool_call></think>\n\n{"ok":true}', True),
        (EITHER, POSSIBLE, '{"ok":true}', True),
        (EITHER, OPEN, '{"ok":true}', False),
        (EITHER, OPEN, f"a</think>\n\n{CALL}", True),
        (AUTO, POSSIBLE, "Hello <think>", True),
        (AUTO, POSSIBLE, f"Look: {CALL}", True),
        (AUTO, POSSIBLE, "<tool_call> is odd", False),
        (AUTO, POSSIBLE, "\n<think>a <tool_call> is odd", True),
        (AUTO, POSSIBLE, "<think>a <tool_call> is odd</think>\nHello", True),
        (AUTO, POSSIBLE, f"<think>a <tool_call> is odd</think>\nLook: {CALL}", True),
        (AUTO, POSSIBLE, "<think>a</think>\n<tool_call> is odd", False),
        (AUTO, POSSIBLE, f"<think>a</think>{CALL} Done.", False),
        (AUTO, OPEN, "a <tool_call> is odd", True),
        (AUTO, OPEN, "a <tool_call> is odd</think>Hello", True),
        (AUTO, OPEN, f"a <tool_call> is odd</think>\n\n{CALL}\n{CALL}", True),
        (AUTO, OPEN, "a</think><tool_call> is odd", False),
    ],
)
async def test_what_is_allowed(
    compiler: GrammarCompiler, structure: Structure, thoughts: Thoughts, text: str, *, is_allowed: bool
) -> None:
    constraint = await compiler.compile(structure, thoughts)
    assert follow(constraint, text, tiny_tokenizer(), TINY_VOCAB_SIZE) == is_allowed


@pytest.mark.parametrize("form", [OK, Regex(r"[ab\n]{1,9}"), Choice((" yes", "\n\nno"))])
@pytest.mark.parametrize("thoughts", [POSSIBLE, OPEN])
async def test_content_behind_thoughts_is_of_the_form(
    compiler: GrammarCompiler, form: Form, thoughts: Thoughts
) -> None:
    for structure in (form, calls(form=form)):
        for seed in range(4):
            text = await random_answer(compiler, structure, thoughts, seed)
            content, thought, num_calls = read(structure, thoughts, text)
            assert thought == "A <tool_call>!"
            if num_calls:
                assert content == ""
            else:
                assert follow(await compiler.compile(form), content, tiny_tokenizer(), TINY_VOCAB_SIZE)


@pytest.mark.parametrize("thoughts", [POSSIBLE, OPEN])
async def test_calls_behind_thoughts_are_found(compiler: GrammarCompiler, thoughts: Thoughts) -> None:
    for seed in range(4):
        text = await random_answer(compiler, REQUIRED, thoughts, seed)
        content, thought, num_calls = read(REQUIRED, thoughts, text)
        assert (content, thought) == ("", "A <tool_call>!")
        assert num_calls == text.count(CALL_CLOSE) > 0


async def random_answer(compiler: GrammarCompiler, structure: Structure, thoughts: Thoughts, seed: int) -> str:
    """A whole answer: thoughts that are given, and what is drawn behind them."""
    given = f"{THINK_OPEN if thoughts is POSSIBLE else ''} A <tool_call>! </think>\n\n"
    constraint = await compiler.compile(structure, thoughts)
    for token_id in tiny_tokenizer()(given, add_special_tokens=False)["input_ids"]:
        constraint.accept(token_id)
    drawn = tiny_random_model().answer(constraint, seed=seed)
    assert drawn.is_complete
    return given + drawn.text


def read(structure: Structure, thoughts: Thoughts, text: str) -> tuple[str, str, int]:
    """Content, thoughts, and the number of calls, of text that comes character by character."""
    reader = AnswerReader(structure, thoughts)
    readings = [reader.read(character) for character in text] + [reader.end()]
    names = [call.name for reading in readings for call in reading.calls if call.name is not None]
    return "".join(reading.text for reading in readings), "".join(r.reasoning for r in readings), len(names)


@pytest.mark.parametrize(
    ("structure", "words"),
    [
        (Grammar("start: /(?s:.*)/"), "structured_outputs.grammar: may begin with <think>"),
        (Grammar('start: "<think>" /a/'), "structured_outputs.grammar: may begin with <think>"),
        (Choice(("<think>",)), "structured_outputs.choice: "),
        (Regex("("), "structured_outputs.regex: "),
        (JsonSchema({"not": {}}), "response_format.json_schema.schema: $: not cannot be enforced"),
    ],
)
async def test_forms_that_cannot_be_told_from_thoughts_are_refused(
    compiler: GrammarCompiler, structure: Form, words: str
) -> None:
    for asked in (structure, calls(form=structure)):
        with pytest.raises(StructureInvalid) as refusal:
            await compiler.compile(asked, POSSIBLE)
        assert str(refusal.value).startswith(words)
