"""Adapters are uploaded, asked, replaced, rolled back, split, pinned and deleted at random, and all stays true."""

from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.server.answering import DIGESTS, Server
from tests.server.building import WAIT_SECONDS, Running
from tests.server.lifecycle import Lifecycle


@pytest.fixture
def server(live: Running) -> Iterator[Server]:
    with httpx.Client(base_url=live.url, timeout=WAIT_SECONDS) as client:
        server = Server(client)
        server.learn()
        yield server


def _run(server: Server, *, stories: int, steps: int, phases: tuple[Phase, ...]) -> None:
    """Each story is the same in every run."""
    run_state_machine_as_test(
        type("Story", (Lifecycle,), {"server": server}),
        settings=settings(
            max_examples=stories,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=True,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_some_stories(server: Server) -> None:
    """One that fails is told as it is: to make it short takes minutes."""
    _run(server, stories=8, steps=15, phases=(Phase.generate,))
    assert {200, 201, 400, 404} <= server.tally.by_status.keys()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_stories(server: Server) -> None:
    _run(server, stories=100, steps=40, phases=(Phase.generate, Phase.shrink))
    assert {200, 201, 400, 404, 409} <= server.tally.by_status.keys()
    assert min(server.tally.by_digest[digest] for digest in DIGESTS) > 50, server.tally
    assert min(server.tally.by_canary[is_canary] for is_canary in (True, False)) > 20, server.tally
