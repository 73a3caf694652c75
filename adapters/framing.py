"""Messages of text over a pipe: 4 bytes of length (little-endian), then UTF-8. Knows no process."""

from typing import IO

LENGTH_BYTES = 4


def message(text: str) -> bytes:
    """The bytes of a message."""
    body = text.encode()
    return len(body).to_bytes(LENGTH_BYTES, "little") + body


def read_message(stream: IO[bytes]) -> str | None:
    """The next message; None at the end."""
    head = stream.read(LENGTH_BYTES)
    if len(head) < LENGTH_BYTES:
        return None
    length = int.from_bytes(head, "little")
    body = stream.read(length)
    return body.decode() if len(body) == length else None
