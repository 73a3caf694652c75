"""ChoiceClock: enters one choice's tokens and their times into the notes and the stats. Knows no text."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from server.engine.outputs import FinishReason, TokenDelta
from server.text.request_notes import RequestNotes
from server.text.serving_stats import ServingStats


class ChoiceClock:
    """Begins when the engine is asked. Tokens that come in one delta are taken as made in equal steps."""

    def __init__(self, notes: RequestNotes, stats: ServingStats) -> None:
        self._notes = notes
        self._stats = stats
        self._asked_at = time.perf_counter()
        self._last_at: float | None = None
        self._reason: FinishReason | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around the choice: however it is left, it is counted as ended."""
        try:
            yield
        except (GeneratorExit, asyncio.CancelledError):
            if self._reason is None:
                self._stats.note_choice("abort", seconds=None)
            raise
        except BaseException:
            if self._reason is None:
                self._stats.note_choice("error", seconds=None)
            raise

    def note_prompt(self, num_tokens: int, num_cached: int) -> None:
        """Enter that the prompt is computed."""
        self._notes.num_prompt_tokens += num_tokens
        self._notes.num_cached_tokens += num_cached
        self._stats.add_prompt(num_tokens)

    def tick(self, delta: TokenDelta, count: int) -> None:
        """Enter that so many tokens of a delta have just become a part of the answer."""
        if not count:
            return
        now = time.perf_counter()
        self._notes.num_generated_tokens += count
        if self._last_at is None:
            self._note_first(delta, count, now)
        else:
            self._notes.last_token_at = now
            self._stats.note_tokens(count, seconds=(now - self._last_at) / count)
        self._last_at = now

    def _note_first(self, delta: TokenDelta, count: int, now: float) -> None:
        admitted_at = None if delta.admission is None else delta.admission.at
        queued = None if admitted_at is None else admitted_at - self._asked_at
        self._notes.note_first(asked_at=self._asked_at, admitted_at=admitted_at, token_at=now)
        self._stats.note_first_tokens(count, seconds=now - self._notes.arrived_at, queue_seconds=queued)

    def end(self, reason: FinishReason) -> None:
        """Enter that the choice has ended by itself."""
        self._reason = reason
        self._notes.finish_reasons.append(reason.value)
        self._stats.note_choice(reason.value, seconds=time.perf_counter() - self._notes.arrived_at)
