"""RequestNotes: what is known of one request, entered while it is answered. For logs and traces; knows neither.

Times are those of `time.perf_counter`.
"""

import time
from dataclasses import dataclass, field
from enum import StrEnum

from adapters.naming import AdapterReference

MAX_KEPT_CHARS = 32_768


class Outcome(StrEnum):
    """How a request that was accepted has ended."""

    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """Its client hung up."""


@dataclass(slots=True, eq=False)
class RequestNotes:
    """None and 0 stand for what has not come, or never comes; a request of several choices has one of these."""

    arrived_at: float = field(default_factory=time.perf_counter)
    model: str | None = None
    """As it was asked for."""
    keeps_prompts: bool = False
    prompts: list[str] = field(default_factory=list)
    """What the model sees, where it is to be kept: the first so many characters of all prompts together."""
    adapter: AdapterReference | None = None
    """The name and the digest that answer, as soon as they are known: before any token."""
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_generated_tokens: int = 0
    asked_at: float | None = None
    """When the engine was asked."""
    admitted_at: float | None = None
    """When the first choice came into the batch."""
    first_token_at: float | None = None
    last_token_at: float | None = None
    finish_reasons: list[str] = field(default_factory=list)
    """Of the choices that have ended by themselves, in the order of their ends."""
    outcome: Outcome | None = None
    error: str | None = None
    """The type of the exception that ended it."""

    def note_prompt(self, text: str) -> None:
        """Keep a prompt's text, if that is wanted, as far as there is room."""
        room = MAX_KEPT_CHARS - sum(map(len, self.prompts))
        if self.keeps_prompts and room > 0:
            self.prompts.append(text[:room])

    def note_first(self, *, asked_at: float, admitted_at: float | None, token_at: float) -> None:
        """Enter one choice's first tokens; those of the choice that was first stand."""
        if self.first_token_at is None:
            self.asked_at, self.admitted_at, self.first_token_at = asked_at, admitted_at, token_at
        self.last_token_at = token_at
