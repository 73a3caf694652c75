"""Tokens on the wire: a text or a conversation to ids and back, in vLLM's form. Knows no tokenizer."""

from typing import Annotated

from pydantic import Discriminator, Field, Tag

from server.protocol.base import MAX_TEXT_CHARS, RequestBody, ResponseBody
from server.protocol.chat import PromptFields
from server.protocol.sampling import TokenId

MAX_TOKEN_IDS = 1 << 20
"""More do not fit into a body."""

ModelName = Annotated[str, Field(min_length=1, max_length=512)]


class TokenizeText(RequestBody):
    """A text as it stands; null stands for a field that is left out."""

    model: ModelName
    prompt: str = Field(max_length=MAX_TEXT_CHARS)
    add_special_tokens: bool | None = None
    """Whether the tokenizer's own, such as BOS, stand before it. Default: true."""
    return_token_strs: bool | None = None


class TokenizeChat(PromptFields):
    """A conversation, in the model's chat format."""

    add_special_tokens: bool | None = None
    """Whether the tokenizer's own stand before what the template writes. Default: as the chat format has it."""
    return_token_strs: bool | None = None


def _kind(body: object) -> str:
    return "<chat>" if isinstance(body, dict) and "messages" in body else "<text>"


TokenizeRequest = Annotated[
    Annotated[TokenizeText, Tag("<text>")] | Annotated[TokenizeChat, Tag("<chat>")], Discriminator(_kind)
]


class TokenizeResponse(ResponseBody):
    """`token_strs` are the tokens' names in the vocabulary; null unless they were asked for."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeRequest(RequestBody):
    model: ModelName
    tokens: list[TokenId] = Field(max_length=MAX_TOKEN_IDS)


class DetokenizeResponse(ResponseBody):
    prompt: str


class RenderedChat(ResponseBody):
    """What the model sees of a chat: `num_virtual_tokens` of the adapter, then `token_ids`, which are `prompt`.

    `eos_token` is the text of the tokenizer's own token for an end; an answer that was trained ends with it.
    """

    model: str
    prompt: str
    token_ids: list[int]
    num_virtual_tokens: int
    max_model_len: int
    eos_token: str | None
