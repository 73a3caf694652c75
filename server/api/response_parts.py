"""Output items of a streamed response while they grow, and the events that tell of it. Knows no order among items."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from server.api.random_ids import random_id
from server.api.wire import choice_logprobs
from server.protocol.response_items import ItemStatus
from server.protocol.response_objects import (
    OutputFunctionCall,
    OutputItem,
    OutputMessage,
    OutputReasoning,
    OutputReasoningText,
    OutputText,
)
from server.protocol.usage import TokenLogprob
from server.text.deltas import TokenChoice

Event = dict[str, Any]
"""An event without its sequence number."""


def new_id(kind: str) -> str:
    """An id that nothing else has."""
    return f"{kind}_{random_id()}"


class GrowingItem(Protocol):
    """One output item, from its first event to its last."""

    def opening(self) -> list[Event]:
        """The events that say it has begun."""

    def item(self, status: ItemStatus) -> OutputItem:
        """The item as it is now."""

    def closing(self, status: ItemStatus) -> list[Event]:
        """The events that say it has ended, in that status."""


@dataclass(slots=True)
class GrowingMessage:
    """The text of the answer."""

    output_index: int
    id: str = field(default_factory=lambda: new_id("msg"))
    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def opening(self) -> list[Event]:
        part = {
            "type": "response.content_part.added",
            **self._place(),
            "part": OutputText(text="", logprobs=[]).model_dump(),
        }
        return [_added(self, self.output_index), part]

    def grow(self, text: str, tokens: Iterable[TokenChoice]) -> list[Event]:
        """More text, with its tokens where they were asked for."""
        logprobs = choice_logprobs(tokens).content
        self.text += text
        self.logprobs += logprobs
        dumped = [entry.model_dump() for entry in logprobs]
        return [{"type": "response.output_text.delta", **self._place(), "delta": text, "logprobs": dumped}]

    def item(self, status: ItemStatus) -> OutputMessage:
        content = [] if status == "in_progress" else [self._part()]
        return OutputMessage(id=self.id, status=status, content=content)

    def closing(self, status: ItemStatus) -> list[Event]:
        part = self._part().model_dump()
        place = self._place()
        return [
            {"type": "response.output_text.done", **place, "text": self.text, "logprobs": part["logprobs"]},
            {"type": "response.content_part.done", **place, "part": part},
            _done(self, self.output_index, status),
        ]

    def _part(self) -> OutputText:
        return OutputText(text=self.text, logprobs=self.logprobs)

    def _place(self) -> Event:
        return {"item_id": self.id, "output_index": self.output_index, "content_index": 0}


@dataclass(slots=True)
class GrowingReasoning:
    """What the model thinks before it answers."""

    output_index: int
    id: str = field(default_factory=lambda: new_id("rs"))
    text: str = ""

    def opening(self) -> list[Event]:
        part = OutputReasoningText(text="").model_dump()
        return [
            _added(self, self.output_index),
            {"type": "response.content_part.added", **self._place(), "part": part},
        ]

    def grow(self, text: str) -> list[Event]:
        """More of it."""
        self.text += text
        return [{"type": "response.reasoning_text.delta", **self._place(), "delta": text}]

    def item(self, status: ItemStatus) -> OutputReasoning:
        content = [] if status == "in_progress" else [OutputReasoningText(text=self.text)]
        return OutputReasoning(id=self.id, status=status, content=content)

    def closing(self, status: ItemStatus) -> list[Event]:
        part = OutputReasoningText(text=self.text).model_dump()
        return [
            {"type": "response.reasoning_text.done", **self._place(), "text": self.text},
            {"type": "response.content_part.done", **self._place(), "part": part},
            _done(self, self.output_index, status),
        ]

    def _place(self) -> Event:
        return {"item_id": self.id, "output_index": self.output_index, "content_index": 0}


@dataclass(slots=True)
class GrowingCall:
    """A call of a function."""

    output_index: int
    name: str
    id: str = field(default_factory=lambda: new_id("fc"))
    call_id: str = field(default_factory=lambda: new_id("call"))
    arguments: str = ""

    def opening(self) -> list[Event]:
        return [_added(self, self.output_index)]

    def grow(self, arguments: str) -> list[Event]:
        """More of its arguments' JSON."""
        self.arguments += arguments
        return [{"type": "response.function_call_arguments.delta", **self._place(), "delta": arguments}]

    def item(self, status: ItemStatus) -> OutputFunctionCall:
        return OutputFunctionCall(
            id=self.id, status=status, call_id=self.call_id, name=self.name, arguments=self.arguments
        )

    def closing(self, status: ItemStatus) -> list[Event]:
        done = {"type": "response.function_call_arguments.done", **self._place(), "name": self.name}
        return [{**done, "arguments": self.arguments}, _done(self, self.output_index, status)]

    def _place(self) -> Event:
        return {"item_id": self.id, "output_index": self.output_index}


def _added(item: GrowingItem, output_index: int) -> Event:
    dumped = item.item("in_progress").model_dump()
    return {"type": "response.output_item.added", "output_index": output_index, "item": dumped}


def _done(item: GrowingItem, output_index: int, status: ItemStatus) -> Event:
    dumped = item.item(status).model_dump()
    return {"type": "response.output_item.done", "output_index": output_index, "item": dumped}
