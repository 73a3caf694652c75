"""Prompts that stand before their answers: their text, where each token begins in it, how likely it was. No engine."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from server.engine.outputs import PromptLogprobs
from server.text.deltas import Echo, PromptToken, TokenChoice, TokenText
from server.text.detokenizer import IncrementalDetokenizer
from server.text.errors import FieldRefused
from server.text.request import TextPrompt, TokenPrompt
from server.text.token_bytes import TokenBytes

LEAST_LOGPROB = -9999.0
"""What is told of a token that the model rules out: JSON has no minus infinity."""

MOST_TOLD_TOKENS = 256
"""In one delta, each with its probabilities."""


@dataclass(frozen=True, slots=True)
class PromptText:
    """A prompt as it is echoed, with its token ids, and where in the text each of them begins, in characters.

    `offsets` are empty where nobody asks for them.
    """

    text: str
    token_ids: Sequence[int]
    offsets: Sequence[int]

    @property
    def parts(self) -> list[range]:
        """Of which tokens it is told at a time: of some, where each is told of, else of all."""
        length, step = len(self.token_ids), MOST_TOLD_TOKENS if self.offsets else max(1, len(self.token_ids))
        return [range(start, min(start + step, length)) for start in range(0, length, step)] or [range(0)]

    def text_of(self, part: range) -> str:
        """A part's text, up to where the next part begins."""
        first = self.offsets[part.start] if part.start else 0
        return self.text[first : self.offsets[part.stop] if part.stop < len(self.token_ids) else None]


class PromptTexts:
    """Any number of threads may ask at once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def of(self, prompt: TextPrompt | TokenPrompt, token_ids: Sequence[int], *, with_offsets: bool) -> PromptText:
        """A text is echoed as it stands, ids as what they say, special tokens written out.

        A token that goes on with a character is said to begin with it, and one that the tokenizer added where it
        stands. Raises FieldRefused for ids that are no tokens.
        """
        if isinstance(prompt, TextPrompt):
            if not with_offsets:
                return PromptText(prompt.text, token_ids, ())
            offsets, _ = self._read(token_ids, self._added(prompt))
            return PromptText(prompt.text, token_ids, [min(offset, len(prompt.text)) for offset in offsets])
        for token_id in token_ids:
            if self._tokenizer.id_to_token(token_id) is None:
                raise FieldRefused("prompt", f"{token_id} is not a token of this model")
        offsets, text = self._read(token_ids, [False] * len(token_ids))
        return PromptText(text, token_ids, offsets if with_offsets else ())

    def _added(self, prompt: TextPrompt) -> list[bool]:
        """Which of a text's tokens are not in it, but come from the tokenizer, such as BOS."""
        mask = self._tokenizer.encode(prompt.text, add_special_tokens=prompt.add_special_tokens).special_tokens_mask
        return [bool(is_added) for is_added in mask]

    def _read(self, token_ids: Iterable[int], is_added: Iterable[bool]) -> tuple[list[int], str]:
        detokenizer = IncrementalDetokenizer(self._tokenizer, skips_special_tokens=False)
        offsets, pieces, num_characters = [], [], 0
        for token_id, is_outside in zip(token_ids, is_added, strict=True):
            offsets.append(num_characters)
            if not is_outside:
                pieces.append(detokenizer.step(token_id))
                num_characters += len(pieces[-1])
        return offsets, "".join(pieces) + detokenizer.flush()


def echo_of(prompt: PromptText, part: range, logprobs: PromptLogprobs | None, token_bytes: TokenBytes) -> Echo:
    """A part of a prompt; log-probabilities, where they were asked for, are of all its tokens but the first."""
    if logprobs is None:
        return Echo(prompt.text_of(part))
    contents = [token_bytes.of(token_id) for token_id in prompt.token_ids[part.start : part.stop]]
    choices = _choices(contents, part, logprobs, token_bytes)
    offsets = prompt.offsets[part.start : part.stop]
    return Echo(prompt.text_of(part), tuple(map(PromptToken, contents, offsets, choices)))


def _choices(
    contents: Sequence[bytes], part: range, logprobs: PromptLogprobs, token_bytes: TokenBytes
) -> list[TokenChoice | None]:
    """Of each token of a part, and the likeliest in its place, those that are ruled out left out."""
    is_first = part.start == 0
    rows = slice(0 if is_first else part.start - 1, part.stop - 1)
    lists = (array[rows].tolist() for array in (logprobs.logprobs, logprobs.top_ids, logprobs.top_logprobs))
    choices: list[TokenChoice | None] = [
        TokenChoice(
            TokenText(content, max(logprob, LEAST_LOGPROB)),
            tuple(
                TokenText(token_bytes.of(token_id), top_logprob)
                for token_id, top_logprob in zip(top_ids, top, strict=True)
                if top_logprob > LEAST_LOGPROB
            ),
        )
        for content, logprob, top_ids, top in zip(contents[is_first:], *lists, strict=True)
    ]
    return [None, *choices] if is_first else choices
