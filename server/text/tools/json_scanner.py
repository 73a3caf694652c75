"""ObjectScanner: where a JSON object ends in text that comes in pieces. Knows no JSON beyond braces and strings."""


class ObjectScanner:
    """Counts braces and brackets outside strings. The object is taken to be well formed: only its end is looked for."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._is_escaped = False
        self.is_complete = False

    def take(self, text: str) -> int:
        """How many characters of `text` belong to the object; the first of all must be its opening brace."""
        for position, character in enumerate(text):
            if self.is_complete:
                return position
            self._step(character)
        return len(text)

    def _step(self, character: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif self._in_string:
            self._is_escaped = character == "\\"
            self._in_string = character != '"'
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            self.is_complete = self._depth <= 0
