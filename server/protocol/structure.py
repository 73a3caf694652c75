"""Structured output on the wire: what form an answer must have. Knows no grammar."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from server.protocol.base import RequestBody, refused
from server.protocol.json_values import JsonObject

MAX_CHOICES = 256


class JsonSchemaDescription(RequestBody):
    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")
    """Has no effect on the answer."""
    description: str | None = Field(default=None, max_length=16_384)
    """Has no effect on the answer: what the model should know of the form belongs in a message."""
    json_schema: JsonObject = Field(alias="schema")
    strict: bool | None = None
    """Answers follow their schema either way."""


class ResponseFormat(RequestBody):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaDescription | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise refused("json_schema", "belongs to type json_schema, which needs it")
        return self


class StructuredOutputs(RequestBody):
    """Exactly one of them."""

    regex: str | None = Field(default=None, min_length=1, max_length=4096)
    choice: list[Annotated[str, Field(min_length=1, max_length=4096)]] | None = Field(
        default=None, min_length=1, max_length=MAX_CHOICES
    )
    grammar: str | None = Field(default=None, min_length=1, max_length=64 * 1024)
    """In Lark's notation."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        given: list[Any] = [self.regex, self.choice, self.grammar]
        if sum(value is not None for value in given) != 1:
            raise PydanticCustomError("structured_outputs", "give exactly one of regex, choice, grammar")
        return self
