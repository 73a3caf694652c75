"""ServingStats: counts of requests, choices and tokens since the start, and how long they took. Knows no HTTP.

Safe to call from any thread; a snapshot is of one moment, so that its counts agree with each other.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from server.text.histogram import Histogram, HistogramCounts
from server.text.request_notes import Outcome, RequestNotes

FINISHED_REASONS = ("stop", "length", "abort", "error")

_FIRST_TOKEN = (
    *(0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0),
)
_BETWEEN_TOKENS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0)
_REQUEST = (0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 120.0, 240.0, 480.0)
_QUEUE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, *_REQUEST[1:])


@dataclass(frozen=True, slots=True)
class ServingCounts:
    """At any moment num_accepted == num_finished + num_failed + num_cancelled + num_in_flight, all of requests.

    Times are in seconds, of choices: a request for two answers counts twice.
    """

    num_accepted: int
    num_finished: int
    num_failed: int
    num_cancelled: int
    num_in_flight: int
    prompt_tokens: int
    generated_tokens: int
    choices: Mapping[str, int]
    """Those that have ended, by FINISHED_REASONS."""
    first_token: HistogramCounts
    """From the request's arrival to the first token."""
    between_tokens: HistogramCounts
    request: HistogramCounts
    """From the request's arrival to the end of a choice that ended by itself."""
    queue: HistogramCounts
    """From asking the engine to a place in the batch."""


@dataclass(slots=True)
class Served:
    """How far one request is served: whoever hands on its last piece says so before."""

    is_whole: bool = False


class ServingStats:
    """One for each app."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self._num_accepted = self._num_in_flight = 0
        self._outcomes: Counter[Outcome] = Counter()
        self._prompt_tokens = self._generated_tokens = 0
        self._choices: Counter[str] = Counter()
        self._first_token = Histogram(_FIRST_TOKEN)
        self._between_tokens = Histogram(_BETWEEN_TOKENS)
        self._request = Histogram(_REQUEST)
        self._queue = Histogram(_QUEUE)

    def snapshot(self) -> ServingCounts:
        with self._lock:
            return ServingCounts(
                num_accepted=self._num_accepted,
                num_finished=self._outcomes[Outcome.FINISHED],
                num_failed=self._outcomes[Outcome.FAILED],
                num_cancelled=self._outcomes[Outcome.CANCELLED],
                num_in_flight=self._num_in_flight,
                prompt_tokens=self._prompt_tokens,
                generated_tokens=self._generated_tokens,
                choices={reason: self._choices[reason] for reason in FINISHED_REASONS},
                first_token=self._first_token.counts(),
                between_tokens=self._between_tokens.counts(),
                request=self._request.counts(),
                queue=self._queue.counts(),
            )

    @contextmanager
    def request(self, notes: RequestNotes) -> Iterator["Served"]:
        """Around one request that was accepted. How the block is left is how the request has ended.

        A generator that is closed, and a task that is cancelled, before all is served, belong to a client that hung up.
        """
        with self._lock:
            self._num_accepted += 1
            self._num_in_flight += 1
        outcome, served = Outcome.FINISHED, Served()
        try:
            yield served
        except (GeneratorExit, asyncio.CancelledError):
            outcome = Outcome.FINISHED if served.is_whole else Outcome.CANCELLED
            raise
        except BaseException as error:
            outcome, notes.error = Outcome.FAILED, type(error).__name__
            raise
        finally:
            notes.outcome = outcome
            with self._lock:
                self._num_in_flight -= 1
                self._outcomes[outcome] += 1

    def add_prompt(self, num_tokens: int) -> None:
        """Count the tokens of a prompt, once."""
        with self._lock:
            self._prompt_tokens += num_tokens

    def note_first_tokens(self, count: int, *, seconds: float, queue_seconds: float | None) -> None:
        """So many tokens came first, together."""
        with self._lock:
            self._generated_tokens += count
            self._first_token.observe(seconds)
            if queue_seconds is not None:
                self._queue.observe(max(queue_seconds, 0.0))

    def note_tokens(self, count: int, *, seconds: float) -> None:
        """So many tokens came, each so long after the one before."""
        with self._lock:
            self._generated_tokens += count
            self._between_tokens.observe(seconds, times=count)

    def note_choice(self, reason: str, *, seconds: float | None) -> None:
        """A choice has ended, for one of FINISHED_REASONS; `seconds` is what it took, if it ended by itself."""
        with self._lock:
            self._choices[reason] += 1
            if seconds is not None:
                self._request.observe(seconds)
