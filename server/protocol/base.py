"""What all wire types have in common. Knows none of them."""

from pydantic import BaseModel, ConfigDict

MAX_TEXT_CHARS = 4 * 1024 * 1024
"""No text is longer than a whole body may be."""


class RequestBody(BaseModel):
    """Strict: a number is not read out of a string. An unknown field is refused, never accepted and ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ResponseBody(BaseModel):
    model_config = ConfigDict(frozen=True)
