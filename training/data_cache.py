"""Rows that were cut into tokens before, kept on the disk under a digest of all that they follow from. Reads no rows.

A file is a checksum, a line break, and JSON. What is torn, damaged or of another version is prepared again.
"""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import orjson
import tokenizers
import transformers

from adapters.base_model import BaseModel
from adapters.chat_format import ChatFormat
from training.conversation import Conversation, rows_digest
from training.examples import EncodedRows, Example

MAX_BYTES = 2 << 30
"""Of all files together; those used longest ago go first."""
_VERSION = 2
_CHECKSUM_BYTES = 64
_SUFFIX = ".rows"


@dataclass(frozen=True, slots=True)
class DataCache:
    """Prepared rows in a directory, which need not exist. Nothing here raises: without a cache, rows are cut anew."""

    directory: Path
    max_bytes: int = MAX_BYTES

    def read(self, key: str) -> EncodedRows | None:
        """None where there is nothing, or nothing whole."""
        path = self._path(key)
        try:
            checksum, content = _split(path.read_bytes())
            if hashlib.sha256(content).hexdigest() != checksum:
                raise ValueError("damaged")
            rows = _rows_of(orjson.loads(content))
        except (OSError, ValueError, LookupError, TypeError):
            return None
        with suppress(OSError):
            os.utime(path)
        return rows

    def write(self, key: str, rows: EncodedRows) -> None:
        """Give the file its name when it is whole and on the disk, and remove the oldest beyond the limit."""
        content = orjson.dumps(_facts_of(rows), option=orjson.OPT_NON_STR_KEYS)
        if len(content) > self.max_bytes:
            return
        with suppress(OSError):
            self.directory.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=self.directory, suffix=".part", delete=False) as file:
                try:
                    file.write(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
                    file.flush()
                    os.fsync(file.fileno())
                    os.replace(file.name, self._path(key))
                except OSError:
                    os.unlink(file.name)
                    raise
            self._make_room()

    def clear(self) -> int:
        """Remove everything; returns how many bytes that freed."""
        freed = 0
        for path in self._files():
            with suppress(OSError):
                size = path.stat().st_size
                path.unlink()
                freed += size
        return freed

    def _make_room(self) -> None:
        found = sorted(((path.stat().st_mtime_ns, path.stat().st_size, path) for path in self._files()), reverse=True)
        total = 0
        for _, size, path in found:
            total += size
            if total > self.max_bytes:
                path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return [path for pattern in (f"*{_SUFFIX}", "*.part") for path in self.directory.glob(pattern)]

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}{_SUFFIX}"


def cache_key(rows: Sequence[Conversation], base: BaseModel, chat_format: ChatFormat, *, max_length: int) -> str | None:
    """sha256 over the rows, the tokenizer, the chat format and the length; None where a template looks at the clock."""
    if "strftime_now" in chat_format.template:
        return None
    facts = {
        "version": [_VERSION, transformers.__version__, tokenizers.__version__],
        "rows": rows_digest(rows),
        "tokenizer": base.identity.tokenizer_fingerprint,
        "end": str(base.tokenizer.eos_token),
        "chat_format": chat_format.model_dump(mode="json"),
        "max_length": max_length,
    }
    return hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _split(data: bytes) -> tuple[str, bytes]:
    return data[:_CHECKSUM_BYTES].decode("ascii"), data[_CHECKSUM_BYTES + 1 :]


def _facts_of(rows: EncodedRows) -> dict[str, Any]:
    examples = [[each.prompt_ids, each.answer_ids, each.answer, list(each.earlier.items())] for each in rows.examples]
    return {"examples": examples, "counts": [rows.num_cut, rows.num_empty, rows.num_separate]}


def _rows_of(facts: Any) -> EncodedRows:
    examples = [Example(prompt, answer, text, dict(earlier)) for prompt, answer, text, earlier in facts["examples"]]
    num_cut, num_empty, num_separate = facts["counts"]
    return EncodedRows(examples, num_cut, num_empty, num_separate)
