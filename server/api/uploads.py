"""Reads a multipart upload into the bytes of an adapter's files. Interprets none, writes nothing to the store."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from adapters.errors import AdapterTooLarge
from adapters.files import CARD_FILE, CONFIG_FILE, DEFAULT_MAX_WEIGHTS_BYTES, MAX_FILE_BYTES, AdapterFiles
from adapters.manifest import MANIFEST_FILE
from adapters.naming import NAME_PATTERN, NAME_RULE
from adapters.tensor_file import WEIGHTS_FILE
from server.api.body_limit import raise_body_limit
from server.errors import UploadInvalid

NAME_PART = "name"
_REQUIRED = (CONFIG_FILE, WEIGHTS_FILE)
_MAX_NAME_BYTES = 1024
_MULTIPART_BYTES = 64 * 1024  # boundaries and the headers of the parts
_SIZES = {name: f"A file of up to {size} bytes" for name, size in MAX_FILE_BYTES.items()} | {
    WEIGHTS_FILE: f"A file of up to --max-adapter-size, by default {DEFAULT_MAX_WEIGHTS_BYTES} bytes"
}

UPLOAD_CONTENT: dict[str, Any] = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "additionalProperties": False,
            "required": [NAME_PART, *_REQUIRED],
            "properties": {
                NAME_PART: {"type": "string", "pattern": f"^{NAME_PATTERN.pattern}$", "description": NAME_RULE},
                **{name: {"type": "string", "format": "binary", "description": size} for name, size in _SIZES.items()},
            },
        }
    }
}
"""The body of an upload, as the OpenAPI document has it."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What a client sent; nothing of it has been checked but the sizes and the names of the parts."""

    name: str
    files: AdapterFiles


async def read_upload(request: Request, *, max_weights_bytes: int) -> Upload:
    """Read the part `name` and a part for each file of an adapter, named as the file is.

    A large body lies in a temporary file while it comes in; the file names that a client gives are not used.
    Raises UploadInvalid, AdapterTooLarge, and HTTPException for a body that is too large or is not multipart.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise HTTPException(
            415, "the body must be multipart/form-data with a part for each file, or JSON with name and source"
        )
    limits = MAX_FILE_BYTES | {WEIGHTS_FILE: max_weights_bytes}
    raise_body_limit(
        request,
        sum(limits.values()) + _MULTIPART_BYTES,
        reason=f"{WEIGHTS_FILE} may have {max_weights_bytes} (--max-adapter-size)",
    )
    async with request.form(max_files=len(MAX_FILE_BYTES), max_fields=1, max_part_size=_MAX_NAME_BYTES) as form:
        parts: dict[str, UploadFile | str] = {}
        for name, part in form.multi_items():
            if name in parts:
                raise UploadInvalid(f"the part {name[:64]!r} is there twice")
            parts[name] = part
        return Upload(_take_name(parts), await _take_files(parts, limits))


def _take_name(parts: dict[str, UploadFile | str]) -> str:
    name = parts.pop(NAME_PART, None)
    if not isinstance(name, str):
        raise UploadInvalid("the part 'name' is missing, or is a file")
    return name


async def _take_files(parts: dict[str, UploadFile | str], limits: Mapping[str, int]) -> AdapterFiles:
    for name in parts:
        if name not in MAX_FILE_BYTES:
            raise UploadInvalid(
                f"the part {name[:64]!r} is not one of name, {', '.join(MAX_FILE_BYTES)} (no pickle is ever read)"
            )
    contents = {name: await _content(name, part, limits[name]) for name, part in parts.items()}
    for name in _REQUIRED:
        if name not in contents:
            raise UploadInvalid(f"the part {name!r} is missing")
    return AdapterFiles(
        contents[CONFIG_FILE], contents[WEIGHTS_FILE], contents.get(MANIFEST_FILE), contents.get(CARD_FILE)
    )


async def _content(name: str, part: UploadFile | str, limit: int) -> bytes:
    if isinstance(part, str):
        raise UploadInvalid(f"the part {name!r} must be sent as a file")
    if part.size is None or part.size > limit:
        flag = " (--max-adapter-size)" if name == WEIGHTS_FILE else ""
        raise AdapterTooLarge(name, f"over the limit of {limit} bytes{flag}")
    return await part.read()
