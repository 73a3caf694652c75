"""How tokens are chosen, on the wire: the fields that chat and plain completions share. Knows no route."""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from server.protocol.base import RequestBody, refused

MAX_TOKENS = 1 << 24
MAX_N = 8
MAX_STOPS = 4
MAX_BIASES = 300


def as_strings(stop: object) -> object:
    """A single stop string is a list of one."""
    if isinstance(stop, str):
        return [stop]
    if stop is not None and not isinstance(stop, list):
        raise PydanticCustomError("stop", "should be a string or a list of up to 4 strings")
    return stop


def _as_bias(bias: object) -> object:
    """JSON's keys are strings; what they say are token ids."""
    if bias is None:
        return None
    if not isinstance(bias, dict):
        raise PydanticCustomError("logit_bias", "should be an object of token ids and numbers")
    return {_token_id(key): value for key, value in bias.items()}


def _token_id(key: object) -> int:
    text = str(key)
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise PydanticCustomError("logit_bias", "has a key that is not a token id")
    return int(text)


StopString = Annotated[str, Field(min_length=1, max_length=64)]
Bias = Annotated[float, Field(ge=-100, le=100)]
TokenId = Annotated[int, Field(ge=0, le=999_999_999)]

SentStop = StopString | Annotated[list[StopString], Field(max_length=MAX_STOPS)]
SentBias = Annotated[
    dict[Annotated[str, Field(max_length=9, pattern="^[0-9]{1,9}$")], Bias], Field(max_length=MAX_BIASES)
]
"""What clients send, as the OpenAPI document has it; JSON's keys are strings."""


class SamplingFields(RequestBody):
    """null stands for a field that is left out."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, le=1 << 24)
    """0 and -1 keep all tokens."""
    min_p: float | None = Field(default=None, ge=0, le=1)
    """Only tokens at least so likely as this share of the likeliest one."""
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    logit_bias: Annotated[
        dict[TokenId, Bias] | None, BeforeValidator(_as_bias, json_schema_input_type=SentBias | None)
    ] = Field(default=None, max_length=MAX_BIASES)
    """Added to the logits of tokens, by id."""
    seed: int | None = Field(default=None, ge=-(1 << 63), le=(1 << 63) - 1)
    stop: Annotated[list[StopString] | None, BeforeValidator(as_strings, json_schema_input_type=SentStop | None)] = (
        Field(default=None, max_length=MAX_STOPS)
    )
    min_tokens: int | None = Field(default=None, ge=0, le=MAX_TOKENS)
    ignore_eos: bool | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_N)
    user: str | None = Field(default=None, max_length=256)
    """Chooses the version, where a name has a canary; nothing else."""

    @model_validator(mode="after")
    def _can_end(self) -> Self:
        if self.min_tokens and self.ignore_eos:
            raise refused("min_tokens", "says nothing beside ignore_eos: give one of them")
        return self
