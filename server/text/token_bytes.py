"""TokenBytes: what bytes each token stands for, whole characters or not. Knows no engine."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import orjson
from tokenizers import Tokenizer

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE_MARK = "\u2581"


class TokenBytes:
    """Reads tokens one by one as their tokenizer's decoder would: the bytes of an answer's tokens are its text.

    Only the space that some decoders leave out at the very beginning of a text is kept.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = {token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        self._read: Callable[[str], bytes] = _reader(orjson.loads(tokenizer.to_str())["decoder"])

    def of(self, token_id: int) -> bytes:
        """The bytes of a token; a special one's name, and nothing for an id that the tokenizer does not know."""
        token = self._tokenizer.id_to_token(token_id)
        if token is None:
            return b""
        return token.encode() if token_id in self._special else self._read(token)


def _reader(decoder: dict[str, Any] | None) -> Callable[[str], bytes]:
    return partial(_from_byte_level, _byte_characters()) if _uses(decoder, "ByteLevel") else _from_words


def _uses(decoder: dict[str, Any] | None, name: str) -> bool:
    if decoder is None:
        return False
    return decoder["type"] == name or any(_uses(inner, name) for inner in decoder.get("decoders", ()))


def _from_byte_level(table: Mapping[str, int], token: str) -> bytes:
    """Each character stands for a byte; an added token, written in other characters, for itself."""
    if all(character in table for character in token):
        return bytes(table[character] for character in token)
    return token.encode()


def _from_words(token: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace(_SPACE_MARK, " ").encode()


def _byte_characters() -> dict[str, int]:
    """Bytes by the printable characters that GPT-2's byte-level vocabulary writes them with.

    Printable Latin-1 characters stand for themselves, the other bytes, in order, for the characters from U+0100 on.
    """
    themselves = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(0x100) if byte not in themselves]
    return {chr(byte): byte for byte in themselves} | {chr(0x100 + i): byte for i, byte in enumerate(others)}
