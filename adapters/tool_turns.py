"""Functions that a model may call, and conversations with calls in them. Knows no prompt text and no wire types."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """A function that the model may call. `parameters` is the JSON schema of its arguments, an object's."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    """None: any JSON object."""
    is_strict: bool = False
    """OpenAI's `strict`; the arguments validate in both cases."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model made in an earlier turn. `arguments` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation; `tool_call_id` belongs to role `tool`, `tool_calls` to role `assistant`."""

    role: str
    content: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str | None = None
    """Thoughts of the assistant that came with its answer; templates have them as `reasoning_content`."""
