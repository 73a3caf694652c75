"""Chat completions on the wire, as https://platform.openai.com/docs/api-reference has them. Knows no route."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from server.protocol.base import MAX_TEXT_CHARS, RequestBody, ResponseBody


class TextPart(RequestBody):
    type: Literal["text"]
    text: str = Field(max_length=MAX_TEXT_CHARS)


def _as_parts(content: object) -> object:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise PydanticCustomError("content", "should be a string or a list of text parts")
    return content


class ChatMessage(RequestBody):
    role: Literal["system", "user", "assistant"]
    content: Annotated[list[TextPart], BeforeValidator(_as_parts)] = Field(min_length=1, max_length=1024)
    refusal: None = None
    """There only so that a message of an answer can be sent back as it came."""

    @property
    def text(self) -> str:
        """The parts one after the other, with nothing between them."""
        return "".join(part.text for part in self.content)


class StreamOptions(RequestBody):
    include_usage: bool = False


def _as_strings(stop: object) -> object:
    if isinstance(stop, str):
        return [stop]
    if stop is not None and not isinstance(stop, list):
        raise PydanticCustomError("stop", "should be a string or a list of up to 4 strings")
    return stop


StopString = Annotated[str, Field(min_length=1, max_length=64)]


class ChatCompletionRequest(RequestBody):
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


FinishReasonName = Literal["stop", "length"]


class PromptTokensDetails(ResponseBody):
    cached_tokens: int


class UsageInfo(ResponseBody):
    """Virtual tokens of an adapter are in none of the counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class AssistantMessage(ResponseBody):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(ResponseBody):
    index: int = 0
    message: AssistantMessage
    logprobs: None = None
    finish_reason: FinishReasonName


class ChatCompletion(ResponseBody):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: UsageInfo


class Delta(ResponseBody):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(ResponseBody):
    index: int = 0
    delta: Delta
    logprobs: None = None
    finish_reason: FinishReasonName | None = None


class ChatCompletionChunk(ResponseBody):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: UsageInfo | None = None
