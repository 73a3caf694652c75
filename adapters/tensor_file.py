"""Checks a safetensors file that holds one soft prompt, before anything is allocated. Knows no torch and no config."""

import json
import struct
from dataclasses import dataclass
from math import prod
from typing import Any

from adapters.errors import AdapterInvalid

WEIGHTS_FILE = "adapter_model.safetensors"
TENSOR_NAME = "prompt_embeddings"
"""PEFT's name of the only tensor in a saved prompt-tuning or P-tuning adapter."""

MAX_HEADER_BYTES = 65_536
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """dtype name of the format, and shape `[num_virtual_tokens, hidden_size]`."""

    dtype: str
    shape: tuple[int, int]


def check_tensor_file(content: bytes) -> TensorHeader:
    """Check every byte of the header and the exact size of the file.

    Format: https://github.com/huggingface/safetensors#format. Raises AdapterInvalid.
    """
    if len(content) < _LENGTH.size:
        raise AdapterInvalid(WEIGHTS_FILE, f"{len(content)} bytes are too few for a safetensors file")
    (header_bytes,) = _LENGTH.unpack_from(content)
    if header_bytes > MAX_HEADER_BYTES:
        raise AdapterInvalid(
            WEIGHTS_FILE, "not a safetensors file (no pickle, zip or .bin file is read), or its header is over 64 KiB"
        )
    body_start = _LENGTH.size + header_bytes
    if body_start > len(content):
        raise AdapterInvalid(WEIGHTS_FILE, "truncated inside its header")
    entry = _only_tensor(content[_LENGTH.size : body_start])
    header = _tensor_header(entry)
    expected = prod(header.shape) * _ITEM_BYTES[header.dtype]
    offsets = entry["data_offsets"]
    if offsets != [0, expected] or not all(type(offset) is int for offset in offsets):
        raise AdapterInvalid(WEIGHTS_FILE, f"data_offsets of '{TENSOR_NAME}' do not match its shape and dtype")
    if len(content) - body_start != expected:
        raise AdapterInvalid(
            WEIGHTS_FILE, f"truncated or padded: {len(content) - body_start} bytes of data, {expected} announced"
        )
    return header


def _only_tensor(header: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(header.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError):
        raise AdapterInvalid(WEIGHTS_FILE, "its header is not JSON with unique keys") from None
    if not isinstance(fields, dict):
        raise AdapterInvalid(WEIGHTS_FILE, "its header is not a JSON object")
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise AdapterInvalid(WEIGHTS_FILE, "__metadata__ is not an object of strings")
    names = set(fields)
    if names != {TENSOR_NAME}:
        held = ", ".join(repr(name[:40]) for name in sorted(names)[:3]) or "none"
        raise AdapterInvalid(
            WEIGHTS_FILE, f"must hold exactly one tensor, '{TENSOR_NAME}'; it holds {len(names)} ({held})"
        )
    entry = fields[TENSOR_NAME]
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise AdapterInvalid(WEIGHTS_FILE, f"'{TENSOR_NAME}' must have dtype, shape and data_offsets")
    return entry


def _tensor_header(entry: dict[str, Any]) -> TensorHeader:
    dtype, shape = entry["dtype"], entry["shape"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise AdapterInvalid(WEIGHTS_FILE, f"dtype of '{TENSOR_NAME}' is not one of F32, F16, BF16")
    if not isinstance(shape, list) or len(shape) != 2 or not all(type(n) is int and n > 0 for n in shape):
        raise AdapterInvalid(WEIGHTS_FILE, f"shape of '{TENSOR_NAME}' is not [num_virtual_tokens, hidden_size]")
    return TensorHeader(dtype, (shape[0], shape[1]))


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("duplicate key")
    return fields
