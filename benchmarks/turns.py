"""How long the first token takes in a conversation's second turn, after a long first one that it repeats."""

from dataclasses import dataclass

from benchmarks.load import Answer, Ask, send
from benchmarks.samples import Sample, sample_of_answers
from benchmarks.session import Session

FIRST, SECOND = "first turn", "second turn"
_SECOND_QUESTION_TOKENS = 60


@dataclass(frozen=True, slots=True)
class Turns:
    """Conversations of two turns with the base model; the first message has `history_tokens` tokens."""

    history_tokens: int = 1_500
    conversations: int = 8

    async def __call__(self, session: Session) -> list[Sample]:
        await self._converse(session, "warm")
        pairs = [await self._converse(session, each) for each in range(self.conversations)]
        return [
            sample_of_answers(FIRST, 1, [first for first, _ in pairs]),
            sample_of_answers(SECOND, 1, [second for _, second in pairs]),
        ]

    async def _converse(self, session: Session, which: object) -> tuple[Answer, Answer]:
        opening = session.ask(session.base_model, "turns", which, prompt_tokens=self.history_tokens)
        first = await send(session.client, session.target, opening)
        follow_up = session.ask(session.base_model, "follow up", which, prompt_tokens=_SECOND_QUESTION_TOKENS)
        history = (*opening.messages, {"role": "assistant", "content": first.text}, *follow_up.messages)
        second = await send(session.client, session.target, Ask(opening.model, history, opening.tokens))
        return first, second
