"""The table of a tokenizer's tokens that grammars are matched with. Knows no grammar."""

from collections.abc import Mapping, Sequence

from llguidance import LLTokenizer
from llguidance._tokenizer import TokenizerWrapper
from tokenizers import Tokenizer

from server.text.token_bytes import TokenBytes


def token_table(tokenizer: Tokenizer, *, num_tokens: int, end_id: int) -> LLTokenizer:
    """The table of a tokenizer without padding and truncation; ids beyond it are in no text. Takes about a second.

    What the detokenizer writes out is text here too. llguidance by itself takes every added token of the form `<…>` for
    a special one, `<tool_call>` and `<think>` among them: where these are text, a model could not write them with the
    tokens that it was trained to. Raises ValueError for a kind of tokenizer that llguidance does not know.
    """
    read = LLTokenizer(tokenizer.to_str(), n_vocab=num_tokens, eos_token=end_id)
    token_bytes = TokenBytes(tokenizer)
    added = tokenizer.get_added_tokens_decoder()
    spoken = {token_id: token_bytes.of(token_id) for token_id, token in added.items() if not token.special}
    return LLTokenizer(TokenizerWrapper(_Tokens(read, spoken)))


class _Tokens:
    """Tokens as llguidance's wrapper asks for them: as it reads them itself, but for those that are `spoken`."""

    bos_token_id = None

    def __init__(self, read: LLTokenizer, spoken: Mapping[int, bytes]) -> None:
        self._read = read
        self.eos_token_id = read.eos_token
        ids = range(read.vocab_size)
        self.tokens: Sequence[bytes] = [spoken.get(token_id) or read.decode_bytes([token_id]) for token_id in ids]
        self._special = frozenset(i for i in ids if i not in spoken and read.is_special_token(i))
        self.special_token_ids: Sequence[int] = sorted(self._special)

    def __call__(self, text: str | bytes) -> list[int]:
        """The tokens of a text that a grammar leaves no choice about. No special token has text, so none is given."""
        words = text.decode() if isinstance(text, bytes) else text
        ids = self._read.tokenize_str(words)
        if self._special.isdisjoint(ids):
            return ids
        return [part for token_id in ids for part in self._parts(token_id)]

    def _parts(self, token_id: int) -> list[int]:
        """A token, or, where the text only looks like a special one, the tokens of its characters."""
        name = self.tokens[token_id].decode(errors="replace")
        if token_id not in self._special or len(name) < 2:
            return [token_id]
        return [*self(name[0]), *self(name[1:])]
