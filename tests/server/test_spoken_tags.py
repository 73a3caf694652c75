"""Tags that are special tokens: text in answers, and in grammars, with the ids that they have in prompts."""

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from server.text.detokenizer import IncrementalDetokenizer
from server.text.reasoning import Thoughts
from server.text.spoken_tags import with_spoken_tags
from server.text.structure.compiler import GrammarCompiler
from server.text.structure.structures import Choice
from tests.server.structure.sampling import follow
from tests.tiny import EOS_ID, tiny_tokenizer

TEXT = "<think>é</think></s>a<tool_call>"


def tokenizer_with(*tags: AddedToken | str) -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(tags)})
    return tokenizer


def test_tags_have_text_and_other_special_tokens_have_none() -> None:
    tokenizer = tokenizer_with("<think>", "</think>", "<tool_call>", "<other>")
    ids = tokenizer(f"{TEXT}<other>", add_special_tokens=False)["input_ids"]
    spoken = with_spoken_tags(tokenizer)
    detokenizer = IncrementalDetokenizer(spoken.backend_tokenizer)
    assert detokenizer.decode(ids) + detokenizer.flush() == "<think>é</think>a<tool_call>"
    assert spoken.backend_tokenizer.get_vocab() == tokenizer.backend_tokenizer.get_vocab()
    assert spoken(f"{TEXT}<other>", add_special_tokens=False)["input_ids"] == ids


def test_the_tokenizer_of_prompts_is_left_as_it_was() -> None:
    tokenizer = tokenizer_with("<think>")
    assert with_spoken_tags(tokenizer) is not tokenizer
    ids = tokenizer("<think>a", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a"


def test_a_tokenizer_without_such_tags_is_used_as_it_is() -> None:
    for tokenizer in (tiny_tokenizer(), tokenizer_with("<other>")):
        assert with_spoken_tags(tokenizer) is tokenizer


async def test_a_grammar_may_ask_for_a_tag_by_its_token() -> None:
    tokenizer = tokenizer_with("<think>", "</think>")
    for used, is_allowed in ((tokenizer, False), (with_spoken_tags(tokenizer), True)):
        compiler = GrammarCompiler(used, len(tokenizer), stop_token_ids=[EOS_ID])
        constraint = await compiler.compile(Choice(("a",)), Thoughts.POSSIBLE)
        compiler.close()
        assert follow(constraint, "<think>b</think>\n\na", tokenizer, len(tokenizer)) == is_allowed
