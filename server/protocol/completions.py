"""Plain completions on the wire, as https://platform.openai.com/docs/api-reference has them. Knows no route."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from server.protocol.base import ResponseBody, refused
from server.protocol.prompts import Prompt, as_prompts_up_to
from server.protocol.sampling import MAX_N, MAX_TOKENS, SamplingFields
from server.protocol.streams import StreamFields
from server.protocol.usage import UsageInfo

MAX_PROMPTS = 64
MAX_CHOICES = 128
"""Prompts times n."""
DEFAULT_MAX_TOKENS = 16


class CompletionRequest(SamplingFields, StreamFields):
    """null stands for a field that is left out."""

    model: str = Field(min_length=1, max_length=512)
    prompt: Annotated[list[Prompt], as_prompts_up_to(MAX_PROMPTS)] = Field(min_length=1, max_length=MAX_PROMPTS)
    max_tokens: int | None = Field(default=None, ge=0, le=MAX_TOKENS)
    """0, with echo, makes no answer: what is told is the prompt."""
    echo: bool | None = None
    """The prompt stands before its answer."""
    logprobs: int | None = Field(default=None, ge=0, le=5)
    """The answer's tokens, with echo the prompt's too, with their log-probabilities, and so many likeliest ones."""
    best_of: int | None = Field(default=None, ge=1, le=MAX_N)
    """As many as n: nothing is made that is not given."""
    suffix: None = None
    """Text after the answer; no model here takes it."""

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        n = self.n or 1
        if self.best_of is not None and self.best_of != n:
            raise refused("best_of", "must be as many as n, or left out")
        if self.max_tokens == 0 and not self.echo:
            raise refused("max_tokens", "must be at least 1: without echo there is nothing to tell")
        if self.max_tokens == 0 and n > 1:
            raise refused("n", "must be 1 where max_tokens is 0")
        if len(self.prompt) * n > MAX_CHOICES:
            raise refused("n", f"must be at most {MAX_CHOICES // len(self.prompt)} for {len(self.prompt)} prompts")
        return self


class LegacyLogprobs(ResponseBody):
    """Lists with an item for each token. A token that is no text is written `bytes:` and its bytes.

    An echoed prompt's first token has null for its probabilities: nothing stands before it. `text_offset` is where in
    the choice's text a token begins, in characters.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(ResponseBody):
    """Choices are counted through: those of the first prompt, then those of the next."""

    index: int
    text: str
    logprobs: LegacyLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class Completion(ResponseBody):
    """A whole answer, or a piece of a stream: both have one form."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    system_fingerprint: str
    usage: UsageInfo | None = None
