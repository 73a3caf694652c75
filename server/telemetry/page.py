"""MetricsPage: the text that Prometheus scrapes. Knows no HTTP and no metric's name."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from server.keys import Caller
from server.telemetry.families import families_of
from server.telemetry.snapshot import Snapshot, Sources


class MetricsPage:
    """One for each app. Nothing is counted in here: every scrape tells what the app's parts have counted."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._process = ProcessCollector(registry=CollectorRegistry())

    def text(self, caller: Caller) -> bytes:
        """The metrics that a caller may see, in Prometheus's text form 0.0.4."""
        registry = CollectorRegistry()
        registry.register(_Families(self._sources.snapshot(caller)))
        registry.register(self._process)
        return generate_latest(registry)


class _Families(Collector):
    """Those of one scrape."""

    def __init__(self, now: Snapshot) -> None:
        self._now = now

    def collect(self) -> Iterator[Metric]:
        return families_of(self._now)
