"""IncrementalDetokenizer: token ids to text while they are made. Knows no engine and no stop strings."""

from collections.abc import Iterable

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class IncrementalDetokenizer:
    """Turns the ids of one text into it, special tokens left out unless told; what it gives never ends in half a
    character.

    All texts of `decode` and the one of `flush` together are what the tokenizer makes of all ids at once. Only after
    bytes that are no UTF-8 may a tokenizer with byte tokens take back a character, which then has been given already.
    """

    def __init__(self, tokenizer: Tokenizer, *, skips_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skips_special_tokens = skips_special_tokens
        self._stream = DecodeStream(skip_special_tokens=skips_special_tokens)
        self._held: list[int] = []  # ids whose text has not been given

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text that these ids complete; empty while a character is unfinished."""
        return "".join(map(self.step, token_ids))

    def step(self, token_id: int) -> str:
        """As `decode`, of one id."""
        self._held.append(token_id)
        try:
            text = self._stream.step(self._tokenizer, token_id)
        except Exception:  # tokenizers has no narrower type for text that it would have to take back
            text = self._text_of(self._held)
            self._stream = DecodeStream(ids=self._held, skip_special_tokens=self._skips_special_tokens)
        if text is None:
            return ""
        self._held = []
        return text

    def flush(self) -> str:
        """The held-back tail; an unfinished character in it becomes U+FFFD."""
        held, self._held = self._held, []
        return self._text_of(held)

    def _text_of(self, token_ids: list[int]) -> str:
        text: str = self._tokenizer.decode(token_ids, skip_special_tokens=self._skips_special_tokens)
        return text
