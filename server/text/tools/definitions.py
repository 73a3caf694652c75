"""Whether and which functions a request has the model call. Knows no prompt text and no wire types."""

from dataclasses import dataclass
from enum import StrEnum


class ToolChoiceMode(StrEnum):
    """Whether the model calls functions."""

    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """A request's `tool_choice`. With a `name`, which goes with REQUIRED, this function alone is called, once."""

    mode: ToolChoiceMode
    name: str | None = None
