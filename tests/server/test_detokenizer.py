"""IncrementalDetokenizer: the pieces make what the tokenizer makes of all ids, and none ends in half a character."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers

from server.text.detokenizer import IncrementalDetokenizer
from tests.tiny import EOS_ID, tiny_tokenizer


def byte_level() -> Tokenizer:
    tokenizer: Tokenizer = tiny_tokenizer().backend_tokenizer
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As Llama's: words that begin with ▁, bytes for all else, and the first space stripped."""
    pieces = ["<unk>", "</s>", "▁the", "▁", "the", "é", "下面", "▁a", "a", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    model = models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    )
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer


TOKENIZERS = {"byte_level": byte_level(), "byte_fallback": byte_fallback()}


def id_of(tokenizer: Tokenizer, token: str) -> int:
    token_id = tokenizer.token_to_id(token)
    assert token_id is not None
    return token_id


def pieces_of(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    detokenizer = IncrementalDetokenizer(tokenizer)
    pieces = [detokenizer.decode([token_id]) for token_id in ids]
    return [*pieces, detokenizer.flush()]


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=st.text(max_size=60))
def test_any_text_comes_back_in_whole_characters(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    pieces = pieces_of(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids)
    if "�" not in text:
        assert all("�" not in piece for piece in pieces)


@given(ids=st.lists(st.integers(0, EOS_ID), max_size=60))
def test_any_ids_give_what_the_tokenizer_gives(ids: list[int]) -> None:
    tokenizer = TOKENIZERS["byte_level"]
    assert "".join(pieces_of(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=True)


@given(ids=st.lists(st.integers(0, TOKENIZERS["byte_fallback"].get_vocab_size() - 1), max_size=60))
def test_bytes_that_are_no_utf8_end_nothing_and_swallow_no_word(ids: list[int]) -> None:
    tokenizer = TOKENIZERS["byte_fallback"]
    text = "".join(pieces_of(tokenizer, [*ids, id_of(tokenizer, "▁the")]))
    assert text.endswith(" the") or not ids or text == "the"
    expected = tokenizer.decode(ids, skip_special_tokens=True)
    if "�" not in expected:
        assert "".join(pieces_of(tokenizer, ids)) == expected


@given(text=st.text(max_size=40), cuts=st.lists(st.integers(1, 7), max_size=40))
def test_how_ids_are_cut_does_not_matter(text: str, cuts: list[int]) -> None:
    ids = TOKENIZERS["byte_level"].encode(text, add_special_tokens=False).ids
    detokenizer = IncrementalDetokenizer(TOKENIZERS["byte_level"])
    pieces, rest = [], ids
    for cut in cuts:
        pieces.append(detokenizer.decode(rest[:cut]))
        rest = rest[cut:]
    assert "".join([*pieces, detokenizer.decode(rest), detokenizer.flush()]) == text


def test_a_character_is_held_back_until_it_is_whole() -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode("é", add_special_tokens=False).ids
    detokenizer = IncrementalDetokenizer(tokenizer)
    assert detokenizer.decode(ids[:1]) == ""
    assert detokenizer.decode(ids[1:]) == "é"
    assert detokenizer.flush() == ""


def test_an_unfinished_character_is_replaced_at_the_end() -> None:
    tokenizer = byte_level()
    detokenizer = IncrementalDetokenizer(tokenizer)
    assert detokenizer.decode(tokenizer.encode("é", add_special_tokens=False).ids[:1]) == ""
    assert detokenizer.flush() == "�"
    assert detokenizer.flush() == ""


def test_bytes_that_take_back_a_character_do_not_end_the_stream() -> None:
    """Here tokenizers' own stream raises: é was right until the stray byte after it made the run of bytes wrong."""
    tokenizer = byte_fallback()
    ids = [id_of(tokenizer, token) for token in ("<0xC3>", "<0xA9>", "<0xC3>", "▁the", "▁a")]
    assert pieces_of(tokenizer, ids) == ["", "é", "", "� the", " a", ""]


def test_special_tokens_are_left_out() -> None:
    detokenizer = IncrementalDetokenizer(byte_level())
    assert detokenizer.decode([EOS_ID, *byte_level().encode("hi").ids, EOS_ID]) + detokenizer.flush() == "hi"
