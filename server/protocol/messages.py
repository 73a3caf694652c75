"""Messages of a conversation on the wire. Knows no chat template."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from server.protocol.base import MAX_TEXT_CHARS, RequestBody, refused
from server.protocol.tools import CallId, SentToolCall


class TextPart(RequestBody):
    type: Literal["text"]
    text: str = Field(max_length=MAX_TEXT_CHARS)


def _as_parts(content: object) -> object:
    if content is None:
        return None
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise PydanticCustomError("content", "should be a string or a list of text parts")
    return content


SentContent = (
    Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
    | Annotated[list[TextPart], Field(min_length=1, max_length=1024)]
    | None
)


class ChatMessage(RequestBody):
    """One message; what its role does not have is refused. Fields that can only be null are there so that a message of
    an answer can be sent back as it came."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[list[TextPart] | None, BeforeValidator(_as_parts, json_schema_input_type=SentContent)] = Field(
        default=None, min_length=1, max_length=1024
    )
    name: str | None = Field(default=None, min_length=1, max_length=64)
    tool_calls: list[SentToolCall] | None = Field(default=None, max_length=128)
    tool_call_id: CallId | None = None
    reasoning_content: str | None = Field(default=None, max_length=MAX_TEXT_CHARS)
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: list[None] | None = Field(default=None, max_length=0)

    @property
    def text(self) -> str | None:
        """The parts one after the other, with nothing between them."""
        return None if self.content is None else "".join(part.text for part in self.content)

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        is_assistant = self.role == "assistant"
        if self.content is None and not (is_assistant and self.tool_calls):
            raise refused("content", "is missing; only an assistant that calls tools needs none")
        if not is_assistant and (self.tool_calls or self.reasoning_content is not None):
            raise refused("role", "only an assistant has tool_calls and reasoning_content")
        if (self.role == "tool") != (self.tool_call_id is not None):
            raise refused("tool_call_id", "belongs to role tool, which needs it")
        return self
