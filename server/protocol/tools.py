"""Tools on the wire: functions that a model may call, and its calls. Knows no route and no chat template."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from server.protocol.base import MAX_TEXT_CHARS, RequestBody, ResponseBody, refused
from server.protocol.json_values import JsonObject

FunctionName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
CallId = Annotated[str, Field(min_length=1, max_length=128)]


class FunctionDefinition(RequestBody):
    name: FunctionName
    description: str | None = Field(default=None, max_length=16_384)
    parameters: JsonObject | None = None
    """JSON schema of the arguments; without it a function takes none."""
    strict: bool | None = None
    """Arguments follow their schema either way."""


class Tool(RequestBody):
    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(RequestBody):
    name: FunctionName


def _as_choice(choice: object) -> object:
    return {"type": choice} if isinstance(choice, str) else choice


class ToolChoice(RequestBody):
    """As a string: none, auto or required; as an object: the one function to call."""

    type: Literal["none", "auto", "required", "function"]
    function: NamedFunction | None = None

    @model_validator(mode="after")
    def _names_its_function(self) -> Self:
        if (self.type == "function") != (self.function is not None):
            raise refused("function", "belongs to type function, which needs it")
        return self


SentToolChoice = Literal["none", "auto", "required"] | ToolChoice

AnyToolChoice = Annotated[ToolChoice, BeforeValidator(_as_choice, json_schema_input_type=SentToolChoice)]


class CalledFunction(RequestBody):
    name: FunctionName
    arguments: str = Field(max_length=MAX_TEXT_CHARS)
    """JSON text, as it came."""


class SentToolCall(RequestBody):
    """A call of an earlier turn, sent back."""

    id: CallId
    type: Literal["function"]
    function: CalledFunction
    index: int | None = Field(default=None, ge=0, le=1023)
    """There only because a call that was put together from a stream has it."""


class FunctionCall(ResponseBody):
    name: str
    arguments: str


class ToolCall(ResponseBody):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class FunctionCallDelta(ResponseBody):
    name: str | None = None
    arguments: str


class ToolCallDelta(ResponseBody):
    """The first delta of a call has its id, type and name; the others a piece of its arguments."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionCallDelta
