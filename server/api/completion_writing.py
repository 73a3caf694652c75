"""Text deltas to plain completions in OpenAI's form, whole and as chunks. Knows no event stream and no engine."""

from codecs import getincrementaldecoder
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from server.api.wire import usage_info
from server.protocol.completions import Completion, CompletionChoice, LegacyLogprobs
from server.text.deltas import Choice, Echo, TextDelta, TokenChoice, Usage
from server.text.deltas import Completion as MadeCompletion


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionHead:
    """What all chunks of one answer have in common."""

    id: str
    created: int
    model: str
    include_usage: bool
    include_logprobs: bool


def whole_completion(head: CompletionHead, made: MadeCompletion) -> Completion:
    """An answer that has ended."""
    choices = [_whole_choice(head, index, choice) for index, choice in enumerate(made.choices)]
    return Completion(
        id=head.id,
        created=head.created,
        model=head.model,
        choices=choices,
        system_fingerprint=made.fingerprint,
        usage=usage_info(made.usage),
    )


def _whole_choice(head: CompletionHead, index: int, made: Choice) -> CompletionChoice:
    assert made.finish_reason is not None, "a whole answer has ended"
    return CompletionChoice(
        index=index,
        text=made.prompt_text + made.text,
        logprobs=_whole_logprobs(made) if head.include_logprobs else None,
        finish_reason=made.finish_reason.value,
    )


def _whole_logprobs(made: Choice) -> LegacyLogprobs:
    tokens = LegacyTokens()
    prompt = tokens.echoed(Echo(made.prompt_text, tuple(made.prompt_tokens)))
    answer = tokens.entered(made.tokens)
    return LegacyLogprobs(
        tokens=prompt.tokens + answer.tokens,
        token_logprobs=prompt.token_logprobs + answer.token_logprobs,
        top_logprobs=prompt.top_logprobs + answer.top_logprobs,
        text_offset=prompt.text_offset + answer.text_offset,
    )


class CompletionChunks:
    """Writes one answer's chunks."""

    def __init__(self, head: CompletionHead, fingerprint: str) -> None:
        self._head = head
        self._fingerprint = fingerprint
        self._tokens: dict[int, LegacyTokens] = {}  # of the choices that have begun

    def chunks(self, delta: TextDelta) -> list[bytes]:
        """The chunk of one delta, be it the prompt's or the answer's."""
        choice = CompletionChoice(
            index=delta.index,
            text=delta.text if delta.echo is None else delta.echo.text,
            logprobs=self._logprobs(delta) if self._head.include_logprobs else None,
            finish_reason=None if delta.finish_reason is None else delta.finish_reason.value,
        )
        return [self._chunk(choice)]

    def usage(self, usage: Usage) -> bytes | None:
        """The last chunk, without choices, if it was asked for."""
        return self._chunk(usage=usage) if self._head.include_usage else None

    def _logprobs(self, delta: TextDelta) -> LegacyLogprobs:
        tokens = self._tokens.setdefault(delta.index, LegacyTokens())
        return tokens.entered(delta.tokens) if delta.echo is None else tokens.echoed(delta.echo)

    def _chunk(self, *choices: CompletionChoice, usage: Usage | None = None) -> bytes:
        """One chunk. If asked for, `usage` is in each, if only as null."""
        chunk = Completion(
            id=self._head.id,
            created=self._head.created,
            model=self._head.model,
            choices=list(choices),
            system_fingerprint=self._fingerprint,
            usage=None if usage is None else usage_info(usage),
        )
        return orjson.dumps(chunk.model_dump(exclude=set() if self._head.include_usage else {"usage"}))


class LegacyTokens:
    """One choice's tokens in the legacy form, piece by piece; it counts where in the text each of them begins."""

    def __init__(self) -> None:
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._num_characters = 0

    def echoed(self, echo: Echo) -> LegacyLogprobs:
        """The next tokens of the prompt, all of which come before those of the answer."""
        self._num_characters += len(echo.text)
        choices = [token.choice for token in echo.tokens]
        return LegacyLogprobs(
            tokens=[_name(token.content) for token in echo.tokens],
            token_logprobs=[None if choice is None else choice.chosen.logprob for choice in choices],
            top_logprobs=[None if choice is None else _likeliest(choice) for choice in choices],
            text_offset=[token.offset for token in echo.tokens],
        )

    def entered(self, tokens: Iterable[TokenChoice]) -> LegacyLogprobs:
        """The next tokens of the answer."""
        tokens = list(tokens)
        return LegacyLogprobs(
            tokens=[_name(token.chosen.content) for token in tokens],
            token_logprobs=[token.chosen.logprob for token in tokens],
            top_logprobs=[_likeliest(token) for token in tokens],
            text_offset=[self._offset(token.chosen.content) for token in tokens],
        )

    def _offset(self, content: bytes) -> int:
        """Where a token begins; one that goes on with a character is said to begin with it."""
        unfinished, _ = self._decoder.getstate()
        is_broken_off = bool(unfinished and content) and not _goes_on(unfinished, content)
        offset = self._num_characters + is_broken_off  # what was unfinished is a U+FFFD of its own
        self._num_characters += len(self._decoder.decode(content))
        return offset


def _likeliest(token: TokenChoice) -> dict[str, float]:
    return {_name(entry.content): entry.logprob for entry in (token.chosen, *token.likeliest)}


def _goes_on(unfinished: bytes, content: bytes) -> bool:
    """Whether the first byte of `content` goes on with a UTF-8 character."""
    try:
        getincrementaldecoder("utf-8")("strict").decode(unfinished + content[:1])
    except UnicodeDecodeError:
        return False
    return True


def _name(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
