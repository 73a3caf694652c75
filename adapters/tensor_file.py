"""Checks a safetensors file's header before anything is allocated. Knows no torch and no config."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from adapters.errors import AdapterInvalid

WEIGHTS_FILE = "adapter_model.safetensors"

MAX_HEADER_BYTES = 65_536
"""Of a file with a few tensors; a file with more may have `BYTES_PER_ENTRY` for each."""
BYTES_PER_ENTRY = 256
MAX_DIMENSIONS = 3

_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """dtype name of the format, shape, and where the tensor's bytes lie, counted from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def check_tensor_file(content: bytes, *, max_tensors: int) -> dict[str, TensorHeader]:
    """Check every byte of the header and the exact size of the file; the tensors by name.

    Shapes have one to three dimensions, none of them zero. Format: https://github.com/huggingface/safetensors#format.
    Raises AdapterInvalid.
    """
    header, num_body_bytes = _split(content, max(MAX_HEADER_BYTES, BYTES_PER_ENTRY * max_tensors))
    entries = _entries(header)
    if not 1 <= len(entries) <= max_tensors:
        raise AdapterInvalid(WEIGHTS_FILE, f"holds {len(entries)} tensors, not 1 to {max_tensors}")
    headers = {name: _tensor_header(name, entry) for name, entry in entries.items()}
    _check_tiling(headers, num_body_bytes)
    return headers


def check_tensor_names(headers: Mapping[str, TensorHeader], expected: set[str]) -> None:
    """Raises AdapterInvalid that names a tensor which is missing, or one which nothing asks for."""
    if missing := sorted(expected - set(headers)):
        held = ", ".join(repr(shortened(name)) for name in sorted(headers)[:3])
        raise AdapterInvalid(WEIGHTS_FILE, f"lacks the tensor '{shortened(missing[0])}'; it holds {held}")
    if unexpected := sorted(set(headers) - expected):
        raise AdapterInvalid(WEIGHTS_FILE, f"holds a tensor that its kind does not have, {shortened(unexpected[0])!r}")


def check_tensor_shape(headers: Mapping[str, TensorHeader], name: str, expected: tuple[int, ...], why: str) -> None:
    """Raises AdapterInvalid that names a tensor with another shape, and which settings of the config ask for it."""
    if headers[name].shape != expected:
        raise AdapterInvalid(
            WEIGHTS_FILE,
            f"'{shortened(name)}' is {list(headers[name].shape)}, adapter_config.json says {list(expected)} ({why})",
        )


def shortened(name: str) -> str:
    """A tensor's name as messages show it."""
    return name if len(name) <= 100 else f"{name[:40]}…{name[-50:]}"


def _split(content: bytes, max_header_bytes: int) -> tuple[bytes, int]:
    """The header, and how many bytes of data follow it."""
    if len(content) < _LENGTH.size:
        raise AdapterInvalid(WEIGHTS_FILE, f"{len(content)} bytes are too few for a safetensors file")
    (header_bytes,) = _LENGTH.unpack_from(content)
    if header_bytes > max_header_bytes:
        limit = f"{max_header_bytes // 1024} KiB"
        raise AdapterInvalid(
            WEIGHTS_FILE, f"not a safetensors file (no pickle, zip or .bin file is read), or its header is over {limit}"
        )
    body_start = _LENGTH.size + header_bytes
    if body_start > len(content):
        raise AdapterInvalid(WEIGHTS_FILE, "truncated inside its header")
    return content[_LENGTH.size : body_start], len(content) - body_start


def _entries(header: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(header.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError):
        raise AdapterInvalid(WEIGHTS_FILE, "its header is not JSON with unique keys") from None
    if not isinstance(fields, dict):
        raise AdapterInvalid(WEIGHTS_FILE, "its header is not a JSON object")
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise AdapterInvalid(WEIGHTS_FILE, "__metadata__ is not an object of strings")
    return fields


def _tensor_header(name: str, entry: Any) -> TensorHeader:
    shown = shortened(name)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise AdapterInvalid(WEIGHTS_FILE, f"'{shown}' must have dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise AdapterInvalid(WEIGHTS_FILE, f"dtype of '{shown}' is not one of F32, F16, BF16")
    if not _are_counts(shape) or not 1 <= len(shape) <= MAX_DIMENSIONS or 0 in shape:
        raise AdapterInvalid(WEIGHTS_FILE, f"shape of '{shown}' is not one to {MAX_DIMENSIONS} sizes above zero")
    num_bytes = prod(shape) * _ITEM_BYTES[dtype]
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[1] - offsets[0] != num_bytes:
        raise AdapterInvalid(WEIGHTS_FILE, f"data_offsets of '{shown}' do not match its shape and dtype")
    return TensorHeader(dtype, tuple(shape), offsets[0], offsets[1])


def _check_tiling(headers: Mapping[str, TensorHeader], num_body_bytes: int) -> None:
    """The tensors must fill the data one after the other, without a hole or an overlap."""
    position = 0
    for name, header in sorted(headers.items(), key=lambda item: item[1].start):
        if header.start != position:
            raise AdapterInvalid(WEIGHTS_FILE, f"data_offsets of '{shortened(name)}' leave a hole or overlap")
        position = header.end
    if position != num_body_bytes:
        raise AdapterInvalid(WEIGHTS_FILE, f"truncated or padded: {num_body_bytes} bytes of data, {position} announced")


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("duplicate key")
    return fields
