"""What the text floor refuses. Knows no HTTP status.

TextError
├── FieldRefused       a field of the request that cannot be honoured
└── StructureError     see `structure.errors`
"""


class TextError(Exception):
    """The root of this tree."""


class FieldRefused(TextError):
    """Carries the name of the field, as the client wrote it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
