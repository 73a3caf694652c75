"""What all wire types have in common. Knows none of them."""

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

MAX_TEXT_CHARS = 4 * 1024 * 1024
"""No text is longer than a whole body may be."""


class RequestBody(BaseModel):
    """Strict: a number is not read out of a string. An unknown field is refused, never accepted and ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ResponseBody(BaseModel):
    model_config = ConfigDict(frozen=True)


FIELD_ERROR = "field:"
"""The type of an error that `refused` makes begins with it; the name of the field follows."""


def refused(field: str, message: str) -> PydanticCustomError:
    """What a check of several fields raises, to name the one that is wrong."""
    return PydanticCustomError(FIELD_ERROR + field, message)
