"""How long the first token takes with an adapter and without, one request at a time, in turn."""

from dataclasses import dataclass

from benchmarks.load import Load, run_closed_loop
from benchmarks.samples import Sample, sample_of_answers
from benchmarks.session import Session

BASE, ADAPTER = "base", "adapter"
_TOKENS = 8
_WARMING = 4


@dataclass(frozen=True, slots=True)
class FirstToken:
    """Base model and first adapter in turn, one client."""

    async def __call__(self, session: Session) -> list[Sample]:
        adapter = session.adapters[0]
        await self._in_turn(session, adapter, "warm", _WARMING)
        load = await self._in_turn(session, adapter, "first token", session.options.requests)
        arms = ((BASE, session.base_model), (ADAPTER, adapter))
        return [
            sample_of_answers(
                arm, 1, [answer for answer in load.answers if answer.ask.model == model], failures=load.failures
            )
            for arm, model in arms
        ]

    async def _in_turn(self, session: Session, adapter: str, purpose: str, number: int) -> Load:
        asks = [
            session.ask(model, purpose, each, model, tokens=_TOKENS)
            for each in range(number)
            for model in (session.base_model, adapter)
        ]
        return await run_closed_loop(session.client, session.target, asks, clients=1)
