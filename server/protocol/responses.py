"""Requests of the Responses API, as https://platform.openai.com/docs/api-reference has them. Knows no route."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from server.protocol.base import MAX_TEXT_CHARS, RequestBody, refused
from server.protocol.chat import Label
from server.protocol.json_values import JsonObject
from server.protocol.response_items import MAX_ITEMS, InputItem, SentItems, as_items
from server.protocol.sampling import MAX_TOKENS
from server.protocol.tools import FunctionName


class FunctionTool(RequestBody):
    type: Literal["function"]
    name: FunctionName
    description: str | None = Field(default=None, max_length=16_384)
    parameters: JsonObject | None = None
    """JSON schema of the arguments; without it a function takes none."""
    strict: bool | None = None
    """Arguments follow their schema either way."""


def _as_choice(choice: object) -> object:
    return {"type": choice} if isinstance(choice, str) else choice


class FunctionChoice(RequestBody):
    """As a string: none, auto or required; as an object: the one function to call."""

    type: Literal["none", "auto", "required", "function"]
    name: FunctionName | None = None

    @model_validator(mode="after")
    def _names_its_function(self) -> Self:
        if (self.type == "function") != (self.name is not None):
            raise refused("name", "belongs to type function, which needs it")
        return self


SentChoice = Literal["none", "auto", "required"] | FunctionChoice


class TextFormat(RequestBody):
    """The form of the answer's text; `name`, `description`, `schema` and `strict` belong to json_schema."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = Field(default=None, min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")
    description: str | None = Field(default=None, max_length=16_384)
    json_schema: JsonObject | None = Field(default=None, alias="schema")
    strict: bool | None = None
    """Answers follow their schema either way."""

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        is_schema = self.type == "json_schema"
        for field, value in (("name", self.name), ("schema", self.json_schema)):
            if is_schema != (value is not None):
                raise refused(field, "belongs to type json_schema, which needs it")
        return self


class TextOptions(RequestBody):
    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None
    """Models are as wordy as they are: there is only the default."""


class ReasoningOptions(RequestBody):
    effort: Literal["minimal", "low", "medium", "high"] | None = None
    """For models whose chat template asks for it."""
    summary: None = None
    """Reasoning is given as it is."""


class ResponseStreamOptions(RequestBody):
    include_obfuscation: Literal[False] | None = None


class ResponsesRequest(RequestBody):
    """null stands for a field that is left out. Nothing is stored: fields that need what was are refused."""

    model: str = Field(min_length=1, max_length=512)
    input: Annotated[list[InputItem], BeforeValidator(as_items, json_schema_input_type=SentItems)] = Field(
        min_length=1, max_length=MAX_ITEMS
    )
    instructions: str | None = Field(default=None, max_length=MAX_TEXT_CHARS)
    """Stands before the input, as a system message."""
    max_output_tokens: int | None = Field(default=None, ge=1, le=MAX_TOKENS)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    include: list[Literal["message.output_text.logprobs"]] | None = Field(default=None, max_length=1)
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    text: TextOptions | None = None
    tools: list[FunctionTool] | None = Field(default=None, max_length=128)
    tool_choice: Annotated[
        FunctionChoice | None, BeforeValidator(_as_choice, json_schema_input_type=SentChoice | None)
    ] = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningOptions | None = None
    metadata: dict[Annotated[str, Field(max_length=64)], Label] | None = Field(default=None, max_length=16)
    """Has no effect on the answer, and is given back with it."""
    store: Literal[False] | None = None
    """Nothing is stored; left out, it is false here."""
    previous_response_id: None = None
    """Nothing is stored: the conversation so far belongs in `input`."""
    conversation: None = None
    prompt: None = None
    background: Literal[False] | None = None
    truncation: Literal["disabled"] | None = None
    service_tier: Literal["auto", "default"] | None = None
    """There is one tier."""
    user: str | None = Field(default=None, max_length=256)
    """Chooses the version, where a name has a canary; nothing else."""
    safety_identifier: Label | None = None
    """Has no effect on the answer."""
    prompt_cache_key: Label | None = None
    """Has no effect: every prompt is looked up in the cache."""

    @property
    def wants_logprobs(self) -> bool:
        return bool(self.include)

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.top_logprobs is not None and not self.wants_logprobs:
            raise refused("top_logprobs", "needs include: [message.output_text.logprobs]")
        if self.stream_options is not None and not self.stream:
            raise refused("stream_options", "is allowed only with stream: true")
        return self
