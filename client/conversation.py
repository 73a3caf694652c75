"""A conversation with one model of a running server, streamed. Knows no terminal."""

import json
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

from client.connection import Connection
from client.errors import ServerRefused
from client.safe_text import one_line, whole

BROKEN_OFF = "the answer broke off"

Message = dict[str, str]


@dataclass(slots=True)
class Answer:
    """What came of an answer so far; times in seconds from the question on."""

    text: str = ""
    finish_reason: str | None = None
    num_tokens: int | None = None
    seconds_to_first: float | None = None
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float | None:
        """Of those after the first; None where the server did not count, or there are too few."""
        if self.num_tokens is None or self.num_tokens < 2 or self.seconds_to_first is None:
            return None
        decoding = self.seconds - self.seconds_to_first
        return (self.num_tokens - 1) / decoding if decoding > 0 else None


@dataclass(slots=True)
class Conversation:
    """Turns with a model; whoever asks decides by `keep` whether a turn becomes part of the history."""

    connection: Connection
    model: str
    system: str | None = None
    messages: list[Message] = field(default_factory=list)
    """The kept turns, without the system prompt."""
    clock: Callable[[], float] = time.perf_counter
    _question: str | None = field(default=None, init=False)
    _num_messages_before: int = field(default=0, init=False)

    def ask(self, question: str, answer: Answer) -> Generator[str]:
        """Say `question`, enter what comes into `answer`, and yield its text piece by piece.

        Closing the generator stops the server's work. Raises ServerUnreachable, ServerRefused.
        """
        question = whole(question)
        self._question, self._num_messages_before = question, len(self.messages)
        body = {
            "model": whole(self.model),
            "messages": [*self.all_messages(), {"role": "user", "content": question}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        started = self.clock()
        with self.connection.lines("/v1/chat/completions", body=body) as lines:
            for data in _events(lines):
                piece = _enter(data, answer)
                answer.seconds = self.clock() - started
                if piece:
                    answer.seconds_to_first = answer.seconds_to_first or answer.seconds
                    yield piece

    def keep(self, answer: Answer) -> None:
        """Make the last question and this answer part of the history."""
        assert self._question is not None, "nothing has been asked"
        question = {"role": "user", "content": self._question}
        self.messages = [*self.messages, question, {"role": "assistant", "content": answer.text}]

    def taken_back(self) -> str | None:
        """The last question, to be asked again: its turn, where it was kept, is forgotten. None where there is none."""
        if self._question is not None:
            self.messages = self.messages[: self._num_messages_before]
        return self._question

    def clear(self) -> None:
        """Forget every turn; the system prompt stays."""
        self.messages = []
        self._question = None

    def models(self) -> list[str]:
        """The names that may be asked. Raises ServerUnreachable, ServerRefused."""
        try:
            return [str(model["id"]) for model in self.connection.json("GET", "/v1/models")["data"]]
        except (LookupError, TypeError):
            raise self.connection.not_ours() from None

    def all_messages(self) -> list[Message]:
        """What the model is told before the next question."""
        opening = [] if self.system is None else [{"role": "system", "content": whole(self.system)}]
        return [*opening, *self.messages]


def _events(lines: Iterator[str]) -> Iterator[str]:
    """The data of a server-sent stream up to [DONE]; comments and blank lines are left out.

    Raises ServerRefused when the stream ends without [DONE].
    """
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        yield data
    raise ServerRefused(BROKEN_OFF)


def _enter(data: str, answer: Answer) -> str:
    """Enter one chunk; the text in it, often none. Raises ServerRefused for an error, and for what is no chunk."""
    try:
        chunk = json.loads(data)
        if "error" in chunk:
            raise ServerRefused(one_line(str(chunk["error"]["message"])))
        piece = ""
        for choice in chunk["choices"]:
            piece += whole(choice["delta"].get("content") or "")
            answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
        if (usage := chunk.get("usage")) is not None:
            answer.num_tokens = int(usage["completion_tokens"])
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ServerRefused(BROKEN_OFF) from None
    answer.text += piece
    return piece
