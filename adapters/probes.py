"""Probes: prompts that travel with an adapter, and what it answered where it was made. Knows no model and no store."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_PROBES = 64
MAX_PROMPT_IDS = 4096
MAX_EXPECTED_IDS = 64
MAX_IDS = 65_536
"""Of all probes of one adapter together: replaying them must not keep a server from its streams."""

NumberType = Literal["float32", "float16", "bfloat16"]
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Probe(_Record):
    """A prompt, the greedy answer to it, and the mean log-probability of that answer's tokens, in nats.

    Virtual tokens are not among `prompt_ids`. The answer ends with the token that ends answers, if it got so far.
    """

    prompt_ids: tuple[TokenId, ...] = Field(min_length=1, max_length=MAX_PROMPT_IDS)
    expected_ids: tuple[TokenId, ...] = Field(min_length=1, max_length=MAX_EXPECTED_IDS)
    mean_logprob: float = Field(ge=-1e6, le=0)


class Probes(_Record):
    """All probes of an adapter.

    `dtype` is what PEFT's own path computed them in. `chat_format` is the fingerprint of the format that their prompts
    were rendered with, None where the adapter has none of its own.
    """

    dtype: NumberType
    chat_format: str | None = Field(default=None, max_length=64)
    items: tuple[Probe, ...] = Field(min_length=1, max_length=MAX_PROBES)

    @model_validator(mode="after")
    def _are_few_ids(self) -> Self:
        num_ids = sum(len(probe.prompt_ids) + len(probe.expected_ids) for probe in self.items)
        if num_ids > MAX_IDS:
            raise ValueError(f"{num_ids} token ids of all probes together are over the limit of {MAX_IDS}")
        return self
