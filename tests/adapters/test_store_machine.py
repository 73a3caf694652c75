"""A store is what a simple model of it says, whatever is done in whatever order."""

import pytest

from tests.adapters.store_machine import run_machines


@pytest.mark.parametrize(
    ("steps", "of_a_run"),
    [(500, 50), pytest.param(100_000, 200, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
    ids=["500", "100,000"],
)
def test_a_store_is_what_the_model_says(steps: int, of_a_run: int) -> None:
    assert run_machines(steps, steps_of_a_run=of_a_run) >= steps
