"""Measure: what every kind of measurement looks like from outside. Knows none of them."""

from typing import Protocol

from benchmarks.samples import Sample
from benchmarks.session import Session


class Measure(Protocol):
    """Measures one running server. Raises RequestFailed where a failure leaves nothing to report."""

    async def __call__(self, session: Session) -> list[Sample]: ...
