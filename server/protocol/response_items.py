"""Items of the Responses API: what a conversation is made of, as clients send them. Knows no route."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from server.protocol.base import MAX_TEXT_CHARS, RequestBody
from server.protocol.json_values import JsonObject
from server.protocol.tools import CallId, FunctionName

MAX_PARTS = 1024
MAX_ITEMS = 1024
MAX_SENT_LOGPROBS = 1 << 17

ItemId = Annotated[str, Field(min_length=1, max_length=128)]
ItemStatus = Literal["in_progress", "completed", "incomplete"]
LongText = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]


class TextPart(RequestBody):
    """Text of a message. What an answer's own text has beside it may be sent back, and has no effect."""

    type: Literal["input_text", "output_text"]
    text: LongText
    annotations: list[None] | None = Field(default=None, max_length=0)
    logprobs: list[JsonObject] | None = Field(default=None, max_length=MAX_SENT_LOGPROBS)


def _as_parts(content: object) -> object:
    if isinstance(content, str):
        return [{"type": "input_text", "text": content}]
    if not isinstance(content, list):
        raise PydanticCustomError("content", "should be a string or a list of text parts")
    return content


SentParts = LongText | Annotated[list[TextPart], Field(max_length=MAX_PARTS)]
TextParts = Annotated[
    list[TextPart], BeforeValidator(_as_parts, json_schema_input_type=SentParts), Field(max_length=MAX_PARTS)
]


class _Item(RequestBody):
    """`id` and `status` are an answer's; sent back, they have no effect."""

    id: ItemId | None = None
    status: ItemStatus | None = None


class MessageItem(_Item):
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: TextParts


class FunctionCallItem(_Item):
    """A call of an earlier turn."""

    type: Literal["function_call"]
    call_id: CallId
    name: FunctionName
    arguments: LongText


class FunctionCallOutputItem(_Item):
    """What a called function gave back."""

    type: Literal["function_call_output"]
    call_id: CallId
    output: TextParts


class SummaryText(RequestBody):
    type: Literal["summary_text"]
    text: LongText


class ReasoningText(RequestBody):
    type: Literal["reasoning_text"]
    text: LongText


class ReasoningItem(_Item):
    """What the model thought in an earlier turn, as it came; it goes before the message after it."""

    type: Literal["reasoning"]
    summary: list[SummaryText] = Field(default=[], max_length=0)
    content: list[ReasoningText] | None = Field(default=None, max_length=MAX_PARTS)
    encrypted_content: None = None


def _kind(item: object) -> str:
    return f"<{item.get('type', 'message')}>" if isinstance(item, dict) else ""


InputItem = Annotated[
    Annotated[MessageItem, Tag("<message>")]
    | Annotated[FunctionCallItem, Tag("<function_call>")]
    | Annotated[FunctionCallOutputItem, Tag("<function_call_output>")]
    | Annotated[ReasoningItem, Tag("<reasoning>")],
    Discriminator(
        _kind,
        custom_error_type="item",
        custom_error_message="should be an item of type message, function_call, function_call_output or reasoning",
    ),
]


SentItems = LongText | Annotated[list[InputItem], Field(min_length=1, max_length=MAX_ITEMS)]


def as_items(value: object) -> object:
    """A text is a message of the user."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise PydanticCustomError("input", "should be a string or a list of items")
    return value
