"""A safetensors file that is not exactly what it should be is refused, before anything is allocated."""

import io
import json
import pickle
import zipfile
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import AdapterInvalid
from adapters.tensor_file import BYTES_PER_ENTRY, MAX_HEADER_BYTES, TensorHeader, check_tensor_file, check_tensor_names
from tests.adapters.making import random_rows, safetensors_bytes, tensor_bytes

GOOD = tensor_bytes(random_rows())
BODY = GOOD[-48:]
ENTRY = {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}


def checked(content: bytes) -> dict[str, TensorHeader]:
    """The only tensor of a file, if it is the one that a soft prompt has."""
    headers = check_tensor_file(content, max_tensors=1)
    check_tensor_names(headers, {"prompt_embeddings"})
    return headers


@pytest.mark.parametrize(("dtype", "name"), [(torch.float32, "F32"), (torch.float16, "F16"), (torch.bfloat16, "BF16")])
def test_the_three_dtypes(dtype: torch.dtype, name: str) -> None:
    num_bytes = 12 * dtype.itemsize
    expected = {"prompt_embeddings": TensorHeader(name, (3, 4), 0, num_bytes)}
    assert checked(tensor_bytes(random_rows().to(dtype))) == expected


def test_every_truncation_is_refused() -> None:
    for length in range(len(GOOD)):
        with pytest.raises(AdapterInvalid):
            checked(GOOD[:length])
    with pytest.raises(AdapterInvalid, match="padded"):
        checked(GOOD + b"\0")


def test_every_flipped_header_byte_is_refused_or_harmless() -> None:
    """What our check lets through, the library reads, and as the same tensor."""
    header_end = len(GOOD) - len(BODY)
    accepted = 0
    for position in range(header_end):
        for bit in range(8):
            damaged = bytearray(GOOD)
            damaged[position] ^= 1 << bit
            try:
                checked(bytes(damaged))
            except AdapterInvalid:
                continue
            accepted += 1
            assert torch.equal(safetensors.torch.load(bytes(damaged))["prompt_embeddings"], random_rows())
    assert accepted < 8 * header_end / 4


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(AdapterInvalid):
        checked(content)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_header_is_refused(value: Any) -> None:
    with pytest.raises(AdapterInvalid):
        checked(safetensors_bytes(json.dumps(value).encode(), BODY))


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"dtype": "I64"}, "dtype"),
        ({"dtype": ["F32"]}, "dtype"),
        ({"shape": []}, "shape"),
        ({"shape": [3, 2, 2, 1]}, "shape"),
        ({"shape": [-3, -4]}, "shape"),
        ({"shape": [0, 4]}, "shape"),
        ({"shape": [True, 12]}, "shape"),
        ({"shape": [3.0, 4]}, "shape"),
        ({"shape": "34"}, "shape"),
        ({"shape": [2**62, 2**62]}, "data_offsets"),
        ({"data_offsets": [0, 47]}, "data_offsets"),
        ({"data_offsets": [False, 48]}, "data_offsets"),
        ({"data_offsets": [1, 49]}, "hole"),
        ({"data_offsets": [48, 0]}, "data_offsets"),
        ({"data_offsets": [-48, 0]}, "data_offsets"),
        ({"data_offsets": [0, 48, 48]}, "data_offsets"),
        ({"data_offsets": [0.0, 48.0]}, "data_offsets"),
        ({"data_offsets": None}, "data_offsets"),
        ({"more": 1}, "must have dtype"),
    ],
)
def test_each_field_of_the_entry(entry: dict[str, Any], problem: str) -> None:
    header = json.dumps({"prompt_embeddings": ENTRY | entry}).encode()
    with pytest.raises(AdapterInvalid, match=problem):
        checked(safetensors_bytes(header, BODY))


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (json.dumps({"prompt_embeddings": ENTRY, "other": ENTRY}).encode(), "holds 2 tensors, not 1 to 1"),
        (json.dumps({"lora_A.weight": ENTRY}).encode(), "'lora_A.weight'"),
        (b"{}", "holds 0 tensors"),
        (b"[]", "not a JSON object"),
        (b'{"a": 1, "a": 2}', "unique keys"),
        (b"[" * 60_000, "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (json.dumps({"prompt_embeddings": ENTRY, "__metadata__": {"a": 1}}).encode(), "__metadata__"),
        (json.dumps({"prompt_embeddings": ENTRY, "__metadata__": []}).encode(), "__metadata__"),
        (json.dumps({"prompt_embeddings": 1}).encode(), "must have dtype"),
    ],
)
def test_other_headers(header: bytes, problem: str) -> None:
    with pytest.raises(AdapterInvalid, match=problem):
        checked(safetensors_bytes(header, BODY))


def test_a_header_over_the_limit_is_not_parsed() -> None:
    with pytest.raises(AdapterInvalid, match="64 KiB"):
        checked(safetensors_bytes(b" " * (MAX_HEADER_BYTES + 1), BODY))
    with pytest.raises(AdapterInvalid, match="64 KiB"):
        checked(b"\xff" * 100)


def test_pickle_and_zip_are_refused() -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("adapter_model/data.pkl", pickle.dumps({"prompt_embeddings": [0.0] * 99}))
    checkpoint = io.BytesIO()
    torch.save({"prompt_embeddings": random_rows()}, checkpoint)
    for content in (pickle.dumps({"prompt_embeddings": [0.0]}), archive.getvalue(), checkpoint.getvalue()):
        with pytest.raises(AdapterInvalid, match="no pickle, zip or"):
            checked(content)


def many(**entries: list[int]) -> bytes:
    """Tensors `[1, 2]` in F32 at these places of 16 bytes of data."""
    header = {name: {"dtype": "F32", "shape": [1, 2], "data_offsets": offsets} for name, offsets in entries.items()}
    return safetensors_bytes(json.dumps(header).encode(), bytes(16))


def test_tensors_fill_the_data_in_any_order() -> None:
    assert set(check_tensor_file(many(a=[8, 16], b=[0, 8]), max_tensors=2)) == {"a", "b"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (many(a=[0, 8], b=[0, 8]), "'b' leave a hole or overlap"),
        (many(a=[0, 8], b=[4, 12]), "'b' leave a hole or overlap"),
        (many(a=[8, 16]), "'a' leave a hole or overlap"),
        (many(a=[0, 8]), "16 bytes of data, 8 announced"),
        (many(a=[0, 8], b=[8, 16], c=[16, 24]), "holds 3 tensors, not 1 to 2"),
    ],
)
def test_holes_overlaps_and_too_many(content: bytes, problem: str) -> None:
    with pytest.raises(AdapterInvalid, match=problem):
        check_tensor_file(content, max_tensors=2)


def test_what_is_missing_and_what_is_not_asked_for_is_named() -> None:
    headers = check_tensor_file(many(a=[0, 8], b=[8, 16]), max_tensors=2)
    check_tensor_names(headers, {"a", "b"})
    with pytest.raises(AdapterInvalid, match="lacks the tensor 'c'"):
        check_tensor_names(headers, {"a", "b", "c"})
    with pytest.raises(AdapterInvalid, match="does not have, 'b'"):
        check_tensor_names(headers, {"a"})


def test_a_header_grows_with_the_tensors_it_may_hold() -> None:
    content = safetensors_bytes(b" " * (1000 * BYTES_PER_ENTRY) + b"{}", b"")
    with pytest.raises(AdapterInvalid, match="header is over 250 KiB"):
        check_tensor_file(content, max_tensors=1000)
    with pytest.raises(AdapterInvalid, match="holds 0 tensors"):
        check_tensor_file(content, max_tensors=1001)
