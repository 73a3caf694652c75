"""How long a server takes until it is ready, and how much memory it holds: at once, and after use."""

from dataclasses import dataclass

from benchmarks.load import run_closed_loop
from benchmarks.samples import Sample, sample_of_load
from benchmarks.session import Session

ARM = "start"
_CLIENTS = 8
_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Starting:
    """The start as it was, then requests: each to another of the adapters, or to the base where there are none."""

    requests: int = 256

    async def __call__(self, session: Session) -> list[Sample]:
        at_start = session.server.resident_mib()
        random = session.random("start")
        models = random.sample(session.adapters, min(self.requests, len(session.adapters))) or [session.base_model]
        asks = [session.ask(models[each % len(models)], "start", each, tokens=_TOKENS) for each in range(self.requests)]
        load = await run_closed_loop(session.client, session.target, asks, clients=_CLIENTS)
        used = sample_of_load(ARM, _CLIENTS, load)
        values = {
            "ready_seconds": session.server.ready_seconds,
            "resident_mib": at_start,
            "resident_after_use_mib": session.server.resident_mib(),
            **used.values,
        }
        return [Sample(arm=ARM, clients=_CLIENTS, values=values, raw=used.raw, failures=used.failures)]
