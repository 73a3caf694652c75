"""The tokenizer that answers are made and read with: tags of thoughts and of calls are text in it. Knows no engine."""

import orjson
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from adapters.hermes import CALL_CLOSE, CALL_OPEN
from server.text.reasoning import THINK_CLOSE, THINK_OPEN

_TAGS = frozenset((THINK_OPEN, THINK_CLOSE, CALL_OPEN, CALL_CLOSE))


def with_spoken_tags(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer itself, or, if it has one of the tags as a special token, one that has it as a plain one.

    Special tokens have no text, and no grammar can ask for them by their text. All ids stay what they are.
    """
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
    if not any(token.special and token.content in _TAGS for token in added):
        return tokenizer
    state = orjson.loads(tokenizer.backend_tokenizer.to_str())
    for token in state["added_tokens"]:
        token["special"] &= token["content"] not in _TAGS
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(orjson.dumps(state).decode()))
