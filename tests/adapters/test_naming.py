"""Which names are legal, and how references are read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import AdapterNameInvalid
from adapters.naming import AdapterReference, check_name


@pytest.mark.parametrize("name", ["a", "A", "0", "movie-sentiment", "a.b_c-d", "x.json", "a..b", "a" * 63])
def test_legal_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *["", ".", "..", ".a", "-a", "_a", "a/b", "../a", "a\\b", "a b", "a\n", "a\0", "%2e%2e", "é", "名", "a" * 64],
        *["a@b", "base:a", "ａ"],
    ],
)
def test_illegal_names(name: str) -> None:
    with pytest.raises(AdapterNameInvalid, match=r"^name: "):
        check_name(name)


def test_the_message_of_a_long_name_is_short() -> None:
    with pytest.raises(AdapterNameInvalid) as caught:
        check_name("/" * 100_000)
    assert len(str(caught.value)) < 250


def test_the_name_of_the_base_model_is_taken() -> None:
    assert check_name("tiny", base_name="other") == "tiny"
    with pytest.raises(AdapterNameInvalid, match="base model's own name"):
        check_name("tiny", base_name="tiny")


def test_references() -> None:
    assert AdapterReference.parse("a") == AdapterReference("a", None)
    assert AdapterReference.parse("a@0123ab") == AdapterReference("a", "0123ab")
    assert AdapterReference.parse("a@" + "0" * 64).digest_prefix == "0" * 64


@pytest.mark.parametrize("text", ["", "@", "a@", "@012345", "a@01234", "a@ABCDEF", "a@" + "0" * 65, "a@b@012345"])
def test_illegal_references(text: str) -> None:
    with pytest.raises(AdapterNameInvalid):
        AdapterReference.parse(text)


@given(st.text())
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        reference = AdapterReference.parse(text)
    except AdapterNameInvalid:
        return
    assert text == reference.name + (f"@{reference.digest_prefix}" if reference.digest_prefix else "")
