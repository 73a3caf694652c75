"""The wire types of the HTTP API, each field bounded. Knows no route, no engine and no status code.

Chat and models follow https://platform.openai.com/docs/api-reference; adapters are our own.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from adapters.naming import DIGEST_PREFIX_PATTERN

MAX_TEXT_CHARS = 4 * 1024 * 1024
"""No text is longer than a whole body may be."""


class _Request(BaseModel):
    """Strict: a number is not read out of a string. An unknown field is refused, never accepted and ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True)


# -- chat: request -----------------------------------------------------------------------------------------------------


class TextPart(_Request):
    type: Literal["text"]
    text: str = Field(max_length=MAX_TEXT_CHARS)


def _as_parts(content: object) -> object:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise PydanticCustomError("content", "should be a string or a list of text parts")
    return content


class ChatMessage(_Request):
    role: Literal["system", "user", "assistant"]
    content: Annotated[list[TextPart], BeforeValidator(_as_parts)] = Field(min_length=1, max_length=1024)
    refusal: None = None
    """There only so that a message of an answer can be sent back as it came."""

    @property
    def text(self) -> str:
        """The parts one after the other, with nothing between them."""
        return "".join(part.text for part in self.content)


class StreamOptions(_Request):
    include_usage: bool = False


def _as_strings(stop: object) -> object:
    if isinstance(stop, str):
        return [stop]
    if stop is not None and not isinstance(stop, list):
        raise PydanticCustomError("stop", "should be a string or a list of up to 4 strings")
    return stop


StopString = Annotated[str, Field(min_length=1, max_length=64)]


class ChatCompletionRequest(_Request):
    """null stands for a field that is left out."""

    model: str = Field(min_length=1, max_length=512)
    messages: list[ChatMessage] = Field(min_length=1, max_length=1024)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=1 << 24)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1 << 24)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, le=1 << 24)
    """0 and -1 keep all tokens."""
    seed: int | None = Field(default=None, ge=-(1 << 63), le=(1 << 63) - 1)
    stop: Annotated[list[StopString] | None, BeforeValidator(_as_strings)] = Field(default=None, max_length=4)
    ignore_eos: bool | None = None
    n: int | None = Field(default=None, ge=1, le=1)
    user: str | None = Field(default=None, max_length=256)
    """Has no effect on the answer."""

    @field_validator("stream_options")
    @classmethod
    def _only_for_streams(cls, options: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if options is not None and not info.data.get("stream"):
            raise PydanticCustomError("stream_options", "is allowed only with stream: true")
        return options

    @field_validator("max_completion_tokens")
    @classmethod
    def _one_limit(cls, limit: int | None, info: ValidationInfo) -> int | None:
        other = info.data.get("max_tokens")
        if limit is not None and other is not None and limit != other:
            raise PydanticCustomError("max_tokens", "differs from max_tokens; give one of them")
        return limit


# -- chat: response ----------------------------------------------------------------------------------------------------

FinishReasonName = Literal["stop", "length"]


class PromptTokensDetails(_Response):
    cached_tokens: int


class UsageInfo(_Response):
    """Virtual tokens of an adapter are in none of the counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class AssistantMessage(_Response):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(_Response):
    index: int = 0
    message: AssistantMessage
    logprobs: None = None
    finish_reason: FinishReasonName


class ChatCompletion(_Response):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: UsageInfo


class Delta(_Response):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(_Response):
    index: int = 0
    delta: Delta
    logprobs: None = None
    finish_reason: FinishReasonName | None = None


class ChatCompletionChunk(_Response):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: UsageInfo | None = None


# -- models ------------------------------------------------------------------------------------------------------------


class ModelCard(_Response):
    """`parent` is the base model that an adapter belongs to, `root` the adapter's digest (the base's own name)."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "hotprompt"
    root: str
    parent: str | None


class ModelList(_Response):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class DeletedModel(_Response):
    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True


# -- adapters ----------------------------------------------------------------------------------------------------------


class AdapterVersion(_Response):
    digest: str
    created: int


class AdapterRecord(_Response):
    """One adapter as it is served now; sizes in bytes, times in seconds since the epoch."""

    id: str
    object: Literal["adapter"] = "adapter"
    digest: str
    created: int
    versions: list[AdapterVersion]
    aliases: list[str]
    pinned: bool
    resident: bool
    kind: str
    num_virtual_tokens: int
    hidden_size: int
    size: int
    base: str | None
    training: dict[str, Any] | None


class AdapterList(_Response):
    object: Literal["list"] = "list"
    data: list[AdapterRecord]


class DeletedAdapter(_Response):
    id: str
    object: Literal["adapter"] = "adapter"
    deleted: Literal[True] = True


def _as_rollback(value: object) -> object:
    if value is None or value is True or (isinstance(value, str) and DIGEST_PREFIX_PATTERN.fullmatch(value)):
        return value
    raise PydanticCustomError("rollback", "should be true, or 6 to 64 hex digits of a version's digest")


class AdapterChange(_Request):
    """Body of PATCH: at least one change. If one is refused, none is made."""

    rollback: Annotated[Literal[True] | str | None, BeforeValidator(_as_rollback)] = None
    """true: the version before the current one; otherwise the digest or a prefix of it."""
    pinned: bool | None = None
    alias: str | None = Field(default=None, min_length=1, max_length=63)
    """One more name for this adapter."""

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.rollback is None and self.pinned is None and self.alias is None:
            raise PydanticCustomError("change", "give at least one of rollback, pinned, alias")
        return self


# -- errors and health -------------------------------------------------------------------------------------------------


class ErrorBody(_Response):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(_Response):
    error: ErrorBody


class Health(_Response):
    status: Literal["ok", "stopping", "dead"]
