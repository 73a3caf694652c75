"""Check sums of a version's files, in the form of the program sha256sum. Knows no store and no digest of a version."""

import hashlib
from collections.abc import Mapping

SUMS_FILE = "SHA256SUMS"
MAX_SUMS_BYTES = 4096


def sums_of(files: Mapping[str, bytes]) -> bytes:
    """A line for each file, as `sha256sum -c` reads it."""
    return "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items()).encode()
