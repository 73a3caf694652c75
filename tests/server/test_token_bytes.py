"""The bytes of single tokens: together they are the text, also where a token is half a character."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from server.text.token_bytes import TokenBytes

TEXTS = ["hello world", " é\n\t日本語 👍🏽", "x" * 40, "</s> <0x41>"]


def byte_level() -> Tokenizer:
    """Every byte is a token, written as GPT-2 writes it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<eos>"])
    return tokenizer


def byte_fallback() -> Tokenizer:
    """A few letters, a mark for spaces, and every byte by its name."""
    tokens = ["h", "e", "l", "o", "\u2581", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_of_all_tokens_are_the_text(text: str) -> None:
    for tokenizer in (byte_level(), byte_fallback()):
        token_bytes = TokenBytes(tokenizer)
        ids = tokenizer.encode(text.replace(" ", "\u2581") if tokenizer.token_to_id("<0x41>") else text).ids
        assert b"".join(token_bytes.of(token_id) for token_id in ids) == text.encode()


def test_special_tokens_have_their_name_and_unknown_ids_nothing() -> None:
    token_bytes = TokenBytes(byte_level())
    assert token_bytes.of(256) == b"<eos>"
    assert token_bytes.of(257) == b""
