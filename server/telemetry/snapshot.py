"""What a scrape tells, read at one moment: of the engine, the requests, the adapters. Knows no text form."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from adapters.registry import AdapterRegistry
from adapters.residency import Residency
from server.engine.async_engine import AsyncEngine
from server.engine.outputs import EngineStats
from server.keys import Caller
from server.supervising import EngineSupervisor
from server.telemetry.http_counts import Answered, HttpCounts
from server.text.adapter_use import OTHER, AdapterUse, UseCounts
from server.text.serving_stats import ServingCounts, ServingStats


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of it; names of adapters are those that the caller may know of."""

    at: float
    """Seconds since the epoch."""
    engine: EngineStats
    is_engine_alive: bool
    seconds_in_step: float
    """How long the step that runs now has taken."""
    num_restarts: int
    """How often the engine was started anew after a fault."""
    is_draining: bool
    max_num_seqs: int
    serving: ServingCounts
    adapters: Mapping[str, UseCounts]
    running: tuple[str, ...]
    """Adapters that sequences run with."""
    waiting: tuple[str, ...]
    """Adapters that sequences wait for, and none runs with."""
    residency: Residency
    http: Mapping[Answered, int]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the figures of one app come from."""

    engine: AsyncEngine
    supervisor: EngineSupervisor
    registry: AdapterRegistry
    use: AdapterUse
    stats: ServingStats
    http: HttpCounts

    def snapshot(self, caller: Caller) -> Snapshot:
        """The figures now, as far as they are a caller's to know."""
        at_work = self.engine.adapters_at_work()
        in_flight = {name: digests for name, digests in self.use.in_flight().items() if caller.may_use(name)}
        running = {name for name, digests in in_flight.items() if not at_work.running.isdisjoint(digests)}
        waiting = {name for name, digests in in_flight.items() if not at_work.waiting.isdisjoint(digests)} - running
        return Snapshot(
            at=time.time(),
            engine=self.engine.stats(),
            is_engine_alive=self.engine.is_alive,
            seconds_in_step=self.engine.seconds_in_step(),
            num_restarts=self.supervisor.num_restarts,
            is_draining=self.engine.is_draining,
            max_num_seqs=self.engine.max_num_seqs,
            serving=self.stats.snapshot(),
            adapters=_visible(self.use.by_label(), caller),
            running=tuple(sorted(running)),
            waiting=tuple(sorted(waiting)),
            residency=self.registry.residency(),
            http=self.http.snapshot(),
        )


def _visible(by_label: dict[str, UseCounts], caller: Caller) -> dict[str, UseCounts]:
    if caller.models is None:
        return by_label
    return {label: counts for label, counts in by_label.items() if label != OTHER and caller.may_use(label)}
