"""How long running streams wait for their next token while a long prompt arrives beside them."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from benchmarks.beside import BesideStreams, Window
from benchmarks.load import send
from benchmarks.samples import Sample
from benchmarks.session import Session

BESIDE = "streams beside a long prompt"


@dataclass(frozen=True, slots=True)
class Intruder:
    """Streams on the base model; a long prompt comes, then as long a time without one, and so on in turn.

    A window lasts from the sending of the prompt to its first token, which is its only one.
    """

    prompt_tokens: int = 4_000
    streams: int = 8
    stream_tokens: int = 512
    prompts: int = 3

    async def __call__(self, session: Session) -> list[Sample]:
        beside = BesideStreams(BESIDE, self.streams, self.stream_tokens)
        return await beside.measure(session, self._prompts(session))

    async def _prompts(self, session: Session) -> AsyncGenerator[Window]:
        for each in range(self.prompts):
            ask = session.ask(session.base_model, "intruder", each, tokens=1, prompt_tokens=self.prompt_tokens)
            answer = await send(session.client, session.target, ask)
            yield Window(answer.started, answer.ended)
