"""Full passes of the garbage collector: when the server rests, or when much has been left."""

import weakref

from server.collector import IDLE_SECONDS, REQUESTS_AT_MOST, FullCollections


class Cycle:
    """Nothing but itself keeps it."""

    def __init__(self) -> None:
        self.itself = self


def test_a_pass_comes_when_nothing_has_run_for_a_while() -> None:
    now = 0.0
    passes = FullCollections(clock=lambda: now)
    cycle = weakref.ref(Cycle())
    now = IDLE_SECONDS
    passes.tick(num_requests=0, is_idle=True)  # nothing has happened
    passes.tick(num_requests=5, is_idle=False)
    passes.tick(num_requests=5, is_idle=True)  # too soon
    assert passes.num_done == 0
    now += IDLE_SECONDS
    passes.tick(num_requests=5, is_idle=True)
    assert passes.num_done == 1
    assert cycle() is None
    now += IDLE_SECONDS
    passes.tick(num_requests=5, is_idle=True)  # there is nothing new to look for
    assert passes.num_done == 1


def test_a_server_that_never_rests_has_its_pass_too() -> None:
    passes = FullCollections(clock=lambda: 0.0)
    for num_requests in range(2 * REQUESTS_AT_MOST + 1):
        passes.tick(num_requests=num_requests, is_idle=False)
    assert passes.num_done == 2
