"""When the garbage collector looks through everything: between requests, not in the middle of them. Knows no HTTP.

A full pass takes a quarter of a second with a thousand streams open, and by itself it comes every second then. What
dies young is collected all the time and at once; only cycles that outlived a few passes wait for a full one.
"""

import gc
import time
from collections.abc import Callable

REQUESTS_AT_MOST = 2000
"""After so many requests there is a full pass even if the server is never idle: what they left takes memory."""
IDLE_SECONDS = 1.0
"""So long nothing must have run: who comes in the middle of a pass waits for its end."""
_NEVER = 1_000_000


def spare_the_collector() -> None:
    """Take all that is loaded out of the collector's sight, and leave full passes to `FullCollections`."""
    gc.collect()
    gc.freeze()
    youngest, middle, _ = gc.get_threshold()
    gc.set_threshold(youngest, middle, _NEVER)


class FullCollections:
    """Does a full pass when it is due; to be asked often."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._num_requests = 0
        self._busy_at = clock()
        self.num_done = 0

    def tick(self, *, num_requests: int, is_idle: bool) -> None:
        """`num_requests` is how many there have been since the start."""
        now = self._clock()
        if not is_idle:
            self._busy_at = now
        num_new = num_requests - self._num_requests
        if num_new >= REQUESTS_AT_MOST or (num_new > 0 and now - self._busy_at >= IDLE_SECONDS):
            gc.collect()
            self._num_requests = num_requests
            self.num_done += 1
