"""FormOrCallsParser: an answer that is either text of a form or calls, while it is made. Knows no grammar."""

from adapters.hermes import CALL_OPEN
from server.text.answer_events import ContentText, ToolEvent
from server.text.tools.parser import ToolCallParser


class FormOrCallsParser:
    """Looks for an opening tag where the answer begins, and nowhere else: behind that a form may have any text.

    `calls` reads the answers that do begin with one. What cannot be told apart when the answer ends is text.
    """

    def __init__(self, calls: ToolCallParser) -> None:
        self._read = self._read_start
        self._calls = calls
        self._held = ""

    def decode(self, text: str) -> list[ToolEvent]:
        """What this piece of text makes known."""
        return self._read(text)

    def flush(self) -> list[ToolEvent]:
        """What was held back, at the answer's end."""
        held, self._held = self._held, ""
        return [*_content(held), *self._calls.flush()]

    def _read_start(self, text: str) -> list[ToolEvent]:
        start = self._held + text
        if len(start) < len(CALL_OPEN) and CALL_OPEN.startswith(start):
            self._held = start
            return []
        self._held = ""
        self._read = self._calls.decode if start.startswith(CALL_OPEN) else _content
        return self._read(start)


def _content(text: str) -> list[ToolEvent]:
    return [ContentText(text)] if text else []
