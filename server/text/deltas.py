"""What comes out of a completion, piece by piece and whole. Knows no tokens' ids and no wire types."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from server.engine.outputs import FinishReason


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one finished request, all its choices; an adapter's virtual tokens are in none of the counts."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class TokenText:
    """A token as bytes, with the natural logarithm of its probability. Bytes need not be whole characters."""

    content: bytes
    logprob: float

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class TokenChoice:
    """A token of the answer, and the likeliest ones in its place, likeliest first."""

    chosen: TokenText
    likeliest: tuple[TokenText, ...]


@dataclass(frozen=True, slots=True)
class PromptToken:
    """A token of a prompt, where in its text it begins, and what is likely there; None where nothing comes before."""

    content: bytes
    offset: int
    choice: TokenChoice | None


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt's text or a part of it, and its tokens where their probabilities were asked for."""

    text: str
    tokens: tuple[PromptToken, ...] = ()


@dataclass(frozen=True, slots=True)
class CallDelta:
    """A piece of a tool call: the first of each call has its name, the others more of its arguments' JSON."""

    index: int
    name: str | None
    arguments: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """What one choice made since its last delta; only its last one has a finish reason, and may have no text.

    `echo` comes first, in deltas of its own, where the prompt is to stand before its answer.
    `usage` comes with the last delta of the last choice. `fingerprint`, the same in all of them, tells base models and
    adapters apart.
    """

    index: int
    text: str
    fingerprint: str
    reasoning: str = ""
    calls: tuple[CallDelta, ...] = ()
    tokens: tuple[TokenChoice, ...] = ()
    echo: Echo | None = None
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


@dataclass(slots=True)
class Call:
    """One whole tool call."""

    name: str
    arguments: str = ""


@dataclass(slots=True)
class Choice:
    """One whole answer, and what was echoed before it."""

    text: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    tokens: list[TokenChoice] = field(default_factory=list)
    prompt_text: str = ""
    prompt_tokens: list[PromptToken] = field(default_factory=list)
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """All whole answers to one request."""

    choices: tuple[Choice, ...]
    fingerprint: str
    usage: Usage


def folded(deltas: Iterable[TextDelta], n: int) -> Completion:
    """The whole of a stream that has come to its end."""
    choices = tuple(Choice() for _ in range(n))
    usage, fingerprint = None, ""
    for delta in deltas:
        _enter(choices[delta.index], delta)
        usage, fingerprint = delta.usage or usage, delta.fingerprint
    assert usage is not None, "a stream ends with the usage"
    return Completion(choices, fingerprint, usage)


def _enter(choice: Choice, delta: TextDelta) -> None:
    choice.text += delta.text
    choice.reasoning += delta.reasoning
    choice.tokens += delta.tokens
    if delta.echo is not None:
        choice.prompt_text += delta.echo.text
        choice.prompt_tokens += delta.echo.tokens
    choice.finish_reason = delta.finish_reason or choice.finish_reason
    for call in delta.calls:
        if call.name is not None:
            choice.calls.append(Call(call.name))
        choice.calls[call.index].arguments += call.arguments
