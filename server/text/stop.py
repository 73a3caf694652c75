"""StopMatcher: ends a text before the first stop string. Knows no tokens."""

from collections.abc import Sequence


class StopMatcher:
    """Passes text on, but holds back an end that may yet become a stop string.

    The stop string that is complete first wins, the longest among several that are complete at the same character; so
    the result does not depend on how the text was cut into pieces.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = sorted({string for string in stop if string}, key=len, reverse=True)
        self._held = ""
        self.stopped = False

    def decode(self, text: str) -> str:
        """The text that is safe to show now; nothing any more once a stop string was found."""
        if self.stopped:
            return ""
        if not self._stop:
            return text
        text = self._held + text
        end = self._stop_start(text)
        if end is None:
            keep = len(text) - self._open_length(text)
            self._held = text[keep:]
            return text[:keep]
        self.stopped = True
        self._held = ""
        return text[:end]

    def flush(self) -> str:
        """What was held back and did not become a stop string."""
        held, self._held = self._held, ""
        return held

    def _stop_start(self, text: str) -> int | None:
        """Where the stop string begins that is complete first."""
        found = [(start + len(stop), start) for stop in self._stop if (start := text.find(stop)) >= 0]
        return min(found)[1] if found else None

    def _open_length(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        longest = len(self._stop[0]) - 1 if self._stop else 0
        for length in range(min(longest, len(text)), 0, -1):
            end = text[-length:]
            if any(stop.startswith(end) for stop in self._stop):
                return length
        return 0
