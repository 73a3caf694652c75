"""Chat completions on the wire, as https://platform.openai.com/docs/api-reference has them. Knows no route."""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from server.protocol.base import RequestBody, ResponseBody, refused
from server.protocol.messages import ChatMessage
from server.protocol.sampling import MAX_TOKENS, SamplingFields
from server.protocol.streams import StreamFields
from server.protocol.structure import ResponseFormat, StructuredOutputs
from server.protocol.tools import AnyToolChoice, Tool, ToolCall, ToolCallDelta
from server.protocol.usage import ChoiceLogprobs, UsageInfo


class TemplateVariables(RequestBody):
    """What chat templates may be told by name. One that a model's template does not ask for is refused."""

    enable_thinking: bool | None = None
    thinking: bool | None = None


Label = Annotated[str, Field(max_length=512)]


class PromptFields(RequestBody):
    """What the model is shown of a conversation."""

    model: str = Field(min_length=1, max_length=512)
    messages: list[ChatMessage] = Field(min_length=1, max_length=1024)
    tools: list[Tool] | None = Field(default=None, min_length=1, max_length=128)
    tool_choice: AnyToolChoice | None = None
    parallel_tool_calls: bool | None = None
    add_generation_prompt: bool | None = None
    """false: the prompt ends with the last message. Default: the assistant's turn is opened."""
    continue_final_message: bool | None = None
    """The assistant goes on where the last message, its own, ends."""
    chat_template_kwargs: TemplateVariables | None = None
    reasoning_effort: Literal["minimal", "low", "medium", "high"] | None = None
    """For models whose chat template asks for it."""

    @model_validator(mode="after")
    def _prompt_agrees(self) -> Self:
        if self.continue_final_message and self.add_generation_prompt:
            raise refused("continue_final_message", "excludes add_generation_prompt")
        if self.continue_final_message and self.messages[-1].role != "assistant":
            raise refused("continue_final_message", "needs a last message of role assistant")
        if self.tools is None and (self.tool_choice is not None and self.tool_choice.type != "none"):
            raise refused("tool_choice", "needs tools")
        if self.tools is None and self.parallel_tool_calls is not None:
            raise refused("parallel_tool_calls", "needs tools")
        self._check_names()
        return self

    def _check_names(self) -> None:
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise refused("tools", "has two functions of one name")
        choice = self.tool_choice
        if choice is not None and choice.function is not None and choice.function.name not in names:
            raise refused("tool_choice", "names a function that is not among tools")


class ChatCompletionRequest(SamplingFields, PromptFields, StreamFields):
    """null stands for a field that is left out."""

    max_tokens: int | None = Field(default=None, ge=1, le=MAX_TOKENS)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MAX_TOKENS)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    metadata: dict[Annotated[str, Field(max_length=64)], Label] | None = Field(default=None, max_length=16)
    """Has no effect on the answer; nothing is stored."""
    store: Literal[False] | None = None
    """Nothing is stored."""
    service_tier: Literal["auto", "default"] | None = None
    """There is one tier."""
    modalities: list[Literal["text"]] | None = Field(default=None, min_length=1, max_length=1)
    safety_identifier: Label | None = None
    """Has no effect on the answer."""
    prompt_cache_key: Label | None = None
    """Has no effect: every prompt is looked up in the cache."""

    @field_validator("max_completion_tokens")
    @classmethod
    def _one_limit(cls, limit: int | None, info: ValidationInfo) -> int | None:
        other = info.data.get("max_tokens")
        if limit is not None and other is not None and limit != other:
            raise PydanticCustomError("max_tokens", "differs from max_tokens; give one of them")
        return limit

    @field_validator("top_logprobs")
    @classmethod
    def _only_with_logprobs(cls, number: int | None, info: ValidationInfo) -> int | None:
        if number is not None and not info.data.get("logprobs"):
            raise PydanticCustomError("top_logprobs", "is allowed only with logprobs: true")
        return number

    @property
    def has_structure(self) -> bool:
        """Whether the text of the answer must have a form."""
        asked = self.response_format is not None and self.response_format.type != "text"
        return asked or self.structured_outputs is not None

    @property
    def may_call_tools(self) -> bool:
        return self.tools is not None and (self.tool_choice is None or self.tool_choice.type != "none")

    @model_validator(mode="after")
    def _structure_agrees(self) -> Self:
        if not self.has_structure and not self.may_call_tools:
            return self
        if self.min_tokens:
            raise refused("min_tokens", "does not go with tools or structured output")
        if self.ignore_eos:
            raise refused("ignore_eos", "does not go with tools or structured output")
        if not self.has_structure:
            return self
        if self.structured_outputs is not None and self.response_format is not None:
            raise refused("structured_outputs", "does not go with response_format: give one of them")
        return self


# -- response ----------------------------------------------------------------------------------------------------------

FinishReasonName = Literal["stop", "length", "tool_calls"]


class AssistantMessage(ResponseBody):
    """`content` is null where there are only tool calls."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | None = Field(default=None, exclude_if=lambda text: text is None)
    tool_calls: list[ToolCall] | None = Field(default=None, exclude_if=lambda calls: calls is None)


class Choice(ResponseBody):
    index: int
    message: AssistantMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReasonName


class ChatCompletion(ResponseBody):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: UsageInfo
    system_fingerprint: str
    service_tier: Literal["default"] = "default"


class Delta(ResponseBody):
    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(ResponseBody):
    index: int
    delta: Delta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishReasonName | None = None


class ChatCompletionChunk(ResponseBody):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str
    usage: UsageInfo | None = None
