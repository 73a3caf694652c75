"""IncrementalDetokenizer: token ids to text while they are made. Knows no engine and no stop strings."""

from collections.abc import Iterable

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class IncrementalDetokenizer:
    """Turns the ids of one answer into text, special tokens left out; what it gives never ends in half a character.

    All the texts of `decode` and the one of `flush` together are what the tokenizer makes of all ids at once.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._num_chars = 0  # already given

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text that these ids complete; empty while a character is unfinished."""
        pieces = []
        for token_id in token_ids:
            self._ids.append(token_id)
            piece = self._stream.step(self._tokenizer, token_id)
            if piece is not None:
                pieces.append(piece)
        text = "".join(pieces)
        self._num_chars += len(text)
        return text

    def flush(self) -> str:
        """The held-back tail; an unfinished character in it becomes U+FFFD."""
        text: str = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        tail = text[self._num_chars :]
        self._num_chars = len(text)
        return tail
