"""AnswerText: one choice's tokens to text that is safe to show, with its tokens' probabilities. Knows no engine."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.engine.outputs import TokenDelta, TokenLogprobs
from server.text.deltas import TokenChoice, TokenText
from server.text.detokenizer import IncrementalDetokenizer
from server.text.stop import StopMatcher
from server.text.token_bytes import TokenBytes


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that is safe to show, and the tokens that it ends."""

    text: str
    tokens: tuple[TokenChoice, ...]


class AnswerText:
    """Goes token by token, so that the result does not depend on how deltas are cut.

    A token's probability is told together with the text that the token completes; tokens of a stop string, like its
    text, are not told.
    """

    def __init__(self, detokenizer: IncrementalDetokenizer, matcher: StopMatcher, token_bytes: TokenBytes) -> None:
        self._detokenizer = detokenizer
        self._matcher = matcher
        self._token_bytes = token_bytes
        self._num_decoded = 0  # characters that the tokens so far decode to
        self._num_shown = 0
        self._untold: list[tuple[int, TokenChoice]] = []  # with where in the text its token begins
        self.num_tokens = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended the text."""
        return self._matcher.stopped

    def decode(self, delta: TokenDelta) -> Piece:
        """What a delta's tokens make safe to show; all that is left when it is the last one."""
        texts = []
        logprobs = delta.logprobs or (None,) * len(delta.token_ids)
        for token_id, logprob in zip(delta.token_ids, logprobs, strict=True):
            texts.append(self._decode(token_id, logprob))
            if self.stopped:
                break
        if delta.finish_reason is not None and not self.stopped:
            texts.append(self._matcher.decode(self._detokenizer.flush()) + self._matcher.flush())
        text = "".join(texts)
        self._num_shown += len(text)
        return Piece(text, self._told(is_last=self.stopped or delta.finish_reason is not None))

    def _decode(self, token_id: int, logprobs: TokenLogprobs | None) -> str:
        self.num_tokens += 1
        if logprobs is not None:
            self._untold.append((self._num_decoded, self._choice(logprobs)))
        text = self._detokenizer.step(token_id)
        self._num_decoded += len(text)
        return self._matcher.decode(text)

    def _told(self, *, is_last: bool) -> tuple[TokenChoice, ...]:
        """Tokens that begin in what is shown: of the last text all that does, before only what surely stays."""
        if not self._untold:
            return ()
        is_whole = is_last and not self.stopped
        told = [choice for start, choice in self._untold if is_whole or start < self._num_shown]
        self._untold = self._untold[len(told) :]
        return tuple(told)

    def _choice(self, logprobs: TokenLogprobs) -> TokenChoice:
        chosen = self._text(logprobs.token_id, logprobs.logprob)
        return TokenChoice(chosen, self._texts(logprobs.top))

    def _texts(self, tokens: Sequence[tuple[int, float]]) -> tuple[TokenText, ...]:
        return tuple(self._text(token_id, logprob) for token_id, logprob in tokens)

    def _text(self, token_id: int, logprob: float) -> TokenText:
        return TokenText(self._token_bytes.of(token_id), logprob)
