"""The table of tokens: what the detokenizer writes is text, what it leaves out is none, whatever the token's name."""

import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from adapters.tool_turns import FunctionTool
from server.text.reasoning import Thoughts
from server.text.structure.compiler import GrammarCompiler
from server.text.structure.structures import Choice, JsonSchema, Regex, Structure, ToolCalls
from server.text.structure.token_table import token_table
from server.text.tools.definitions import ToolChoice, ToolChoiceMode
from tests.server.structure.sampling import allowed_ids, follow, tiny_id
from tests.server.structure.schemas import closed
from tests.tiny import EOS_ID, tiny_tokenizer

SPOKEN = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
CALL = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
TOOLS = (FunctionTool("f", parameters=closed()),)


def tagged_tokenizer() -> PreTrainedTokenizerFast:
    """With tags as Qwen's has them, added and not special, behind a token that is special."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken("<|start|>", special=True), *SPOKEN], special_tokens=False)
    return tokenizer


def calls(mode: ToolChoiceMode) -> ToolCalls:
    structure = ToolCalls.asked(TOOLS, ToolChoice(mode))
    assert structure is not None
    return structure


@pytest.mark.parametrize(
    ("structure", "thoughts", "text"),
    [
        (calls(ToolChoiceMode.REQUIRED), Thoughts.NONE, f"{CALL}\n{CALL}"),
        (calls(ToolChoiceMode.AUTO), Thoughts.NONE, f"Look: {CALL}"),
        (calls(ToolChoiceMode.AUTO), Thoughts.POSSIBLE, f"<think>a <tool_call></think>{CALL}"),
        (calls(ToolChoiceMode.REQUIRED), Thoughts.OPEN, f"a</think>\n\n{CALL}"),
        (Choice(("<tool_call>",)), Thoughts.NONE, "<tool_call>"),
        (JsonSchema(closed(a={"type": "string"})), Thoughts.NONE, '{"a":"<think>"}'),
    ],
)
async def test_tags_are_written_with_their_tokens(structure: Structure, thoughts: Thoughts, text: str) -> None:
    tokenizer = tagged_tokenizer()
    assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) < len(text)
    compiler = GrammarCompiler(tokenizer, len(tokenizer), stop_token_ids=[EOS_ID])
    assert follow(await compiler.compile(structure, thoughts), text, tokenizer, len(tokenizer))
    compiler.close()


@pytest.mark.parametrize("structure", [Choice(("<|start|>",)), Choice(("<|start|>a", "b")), Regex(r"[<|>a-z]+")])
async def test_text_that_looks_like_a_special_token_is_made_of_others(structure: Structure) -> None:
    tokenizer = tagged_tokenizer()
    compiler = GrammarCompiler(tokenizer, len(tokenizer), stop_token_ids=[EOS_ID])
    constraint = await compiler.compile(structure)
    compiler.close()
    special_id = tokenizer.backend_tokenizer.token_to_id("<|start|>")
    for character in "<|start|>":
        allowed = allowed_ids(constraint, len(tokenizer))
        assert tiny_id(character) in allowed
        assert special_id not in allowed
        constraint.accept(tiny_id(character))


def test_ids_beyond_the_tokenizer_are_in_no_text() -> None:
    tokenizer = tagged_tokenizer()
    table = token_table(tokenizer.backend_tokenizer, num_tokens=len(tokenizer) + 9, end_id=EOS_ID)
    assert (table.vocab_size, table.eos_token) == (len(tokenizer) + 9, EOS_ID)
    special = [i for i in range(EOS_ID, table.vocab_size) if table.is_special_token(i)]
    start_id = tokenizer.backend_tokenizer.token_to_id("<|start|>")
    assert special == [EOS_ID, start_id, *range(len(tokenizer), table.vocab_size)]
    text = "<tool_call>é"
    assert table.decode_bytes(tokenizer(text, add_special_tokens=False)["input_ids"]) == text.encode()
