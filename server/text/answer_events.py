"""What an answer's text is made of, piece by piece: reasoning, content, calls of functions. Knows no parser."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReasoningText:
    """Thoughts that the model wrote before its answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ContentText:
    """Text for the reader."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStarted:
    """A call begins; `index` counts the calls of one answer from 0."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArguments:
    """More of the arguments' JSON. All fragments of a call, one after the other, are its arguments."""

    index: int
    fragment: str


@dataclass(frozen=True, slots=True)
class ToolCallEnded:
    """The arguments are complete. A call that the answer's length cut off has no end."""

    index: int


AnswerEvent = ReasoningText | ContentText | ToolCallStarted | ToolCallArguments | ToolCallEnded
ToolEvent = ContentText | ToolCallStarted | ToolCallArguments | ToolCallEnded
