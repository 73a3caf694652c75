"""Embeddings on the wire, as https://platform.openai.com/docs/api-reference has them. Knows no route."""

from typing import Annotated, Literal

from pydantic import Field

from server.protocol.base import RequestBody, ResponseBody
from server.protocol.prompts import Prompt, as_prompts_up_to

MAX_INPUTS = 2048


class EmbeddingsRequest(RequestBody):
    """null stands for a field that is left out."""

    model: str = Field(min_length=1, max_length=512)
    input: Annotated[list[Prompt], as_prompts_up_to(MAX_INPUTS)] = Field(min_length=1, max_length=MAX_INPUTS)
    dimensions: int | None = Field(default=None, ge=1, le=1 << 20)
    """How many of an embedding's first numbers are given, scaled to length 1 again."""
    encoding_format: Literal["float", "base64"] | None = None
    """base64: the numbers as little-endian float32."""
    user: str | None = Field(default=None, max_length=256)
    """Chooses the version, where a name has a canary; nothing else."""


class Embedding(ResponseBody):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(ResponseBody):
    """Virtual tokens of an adapter are in none of the counts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(ResponseBody):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage
