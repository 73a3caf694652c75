"""Closed-loop load on the base model and on mixtures of adapters, at one number of clients after the other."""

from dataclasses import dataclass

from benchmarks.load import run_closed_loop
from benchmarks.samples import Sample, sample_of_load
from benchmarks.session import Session

REQUESTS_FOR_EACH_CLIENT = 4
_WARM_TOKENS = 8
_MOST_WARMED_ADAPTERS = 128
_WARMING_CLIENTS = 8


def arm_of(adapters: int) -> str:
    """What the load on so many adapters is called; on none, it goes to the base model."""
    if not adapters:
        return "base"
    return f"{adapters:,} adapter{'s' if adapters > 1 else ''}"


@dataclass(frozen=True, slots=True)
class MixedLoad:
    """Load on the first n adapters, uniformly chosen, for each n of `mixes`; 0 is the base model.

    `clients` overrides the options'. Before each run the same number of clients warms the server, with other prompts.
    """

    mixes: tuple[int, ...] = (0,)
    clients: tuple[int, ...] | None = None

    async def __call__(self, session: Session) -> list[Sample]:
        samples = []
        for mix in self.mixes:
            await self._touch_adapters(session, mix)
        for clients in self.clients or session.options.clients:
            for mix in self.mixes:
                samples.append(await self._run(session, mix, clients))
        return samples

    async def _run(self, session: Session, mix: int, clients: int) -> Sample:
        models = session.adapters[:mix] or (session.base_model,)
        number = max(session.options.requests, REQUESTS_FOR_EACH_CLIENT * clients)
        warming = session.asks(models, clients, "warm", mix, clients, tokens=_WARM_TOKENS)
        asks = session.asks(models, number, "load", mix, clients)
        await run_closed_loop(session.client, session.target, warming, clients=clients)
        load = await run_closed_loop(session.client, session.target, asks, clients=clients)
        return sample_of_load(arm_of(mix), clients, load)

    async def _touch_adapters(self, session: Session, mix: int) -> None:
        """Ask adapters something once, as they would have been in a server that has run for a while."""
        names = session.adapters[:mix]
        touched = session.random("touch", mix).sample(names, min(len(names), _MOST_WARMED_ADAPTERS))
        asks = [session.ask(name, "touch", mix, name, tokens=1) for name in touched]
        await run_closed_loop(session.client, session.target, asks, clients=_WARMING_CLIENTS)
