"""The course of the learning rate: by steps, or by the time there is. Knows no model and no trainer."""

import time
from collections.abc import Callable

Rate = Callable[[int], float]
"""Share of the highest learning rate that a step is made with; steps count from 0."""

# Functions and not objects: a scheduler would write an object's attributes into checkpoints.


def one_step_on(course: Rate) -> Rate:
    """A course without its first step. Of a warm-up that is the step at a rate of 0, which would teach nothing."""

    def rate(step: int) -> float:
        return course(step + 1)

    return rate


def by_the_clock(course: Rate, *, steps: int, clock: "Clock") -> Rate:
    """A course of so many steps that is gone through in the time that there is, or in its steps if those end first."""

    def rate(step: int) -> float:
        return course(max(step, int(clock.share_gone * steps)))

    return rate


class Clock:
    """How much of a given time has gone since `start`, which is asked for once a step at most. Times in seconds."""

    def __init__(self, limit: float, *, now: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._now = now
        self._started_at: float | None = None

    def start(self) -> None:
        self._started_at = self._now()

    @property
    def share_gone(self) -> float:
        """From 0 to 1; 0 before the start."""
        if self._started_at is None:
            return 0.0
        return min(1.0, (self._now() - self._started_at) / self._limit)
