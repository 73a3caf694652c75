"""Prompts that are no conversations, on the wire: texts and token ids, one or many. Knows no route."""

from typing import Annotated

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from server.protocol.base import MAX_TEXT_CHARS
from server.protocol.sampling import TokenId

MAX_TOKEN_IDS = 1 << 20
"""More do not fit into a body."""

Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_TOKEN_IDS)]


def _kind(prompt: object) -> str:
    return "<tokens>" if isinstance(prompt, list) else "<text>"


def as_prompts(prompts: object) -> object:
    """A text, or a list of token ids, is a list of one prompt."""
    if isinstance(prompts, str):
        return [prompts]
    if not isinstance(prompts, list):
        raise PydanticCustomError(
            "prompts", "should be a string, a list of strings, or one or several lists of token ids"
        )
    return [prompts] if prompts and not isinstance(prompts[0], str | list) else prompts


Prompt = Annotated[Annotated[Text, Tag("<text>")] | Annotated[TokenIds, Tag("<tokens>")], Discriminator(_kind)]
"""A text as it stands, or token ids."""


def as_prompts_up_to(number: int) -> BeforeValidator:
    """To be put on a list of so many prompts at most."""
    several = Annotated[list[Text | TokenIds], Field(min_length=1, max_length=number)]
    return BeforeValidator(as_prompts, json_schema_input_type=Text | TokenIds | several)
