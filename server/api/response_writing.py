"""An answer's deltas to a response of the Responses API, and to the events of its stream. Knows no event stream."""

import time
from collections.abc import Iterable

from server.api.response_parts import Event, GrowingCall, GrowingItem, GrowingMessage, GrowingReasoning, new_id
from server.engine.outputs import FinishReason
from server.protocol.errors import ErrorBody
from server.protocol.response_items import ItemStatus
from server.protocol.response_objects import (
    IncompleteDetails,
    InputTokensDetails,
    OutputItem,
    ResponseErrorBody,
    ResponseObject,
    ResponseStatus,
    ResponseUsage,
)
from server.protocol.responses import FunctionChoice, ReasoningOptions, ResponsesRequest, TextFormat, TextOptions
from server.text.deltas import CallDelta, TextDelta, Usage

_ASKED_TEXT = TextOptions(format=TextFormat(type="text"))


class ResponseWriter:
    """Follows one answer from its first delta to its last; a whole response is what is there at the end.

    Items come one after the other: reasoning, text, calls. Each method returns events, which are for streams.
    """

    def __init__(self, body: ResponsesRequest) -> None:
        self._body = body
        self._id = new_id("resp")
        self._created = int(time.time())
        self._output: list[OutputItem] = []
        self._open: GrowingItem | None = None
        self._num_events = 0
        self.response = self._state("in_progress")

    @property
    def has_begun(self) -> bool:
        """Whether there have been events."""
        return self._num_events > 0

    def begin(self) -> list[Event]:
        """The events before any output."""
        response = self.response.model_dump(by_alias=True)
        return self._numbered(
            [{"type": f"response.{state}", "response": response} for state in ("created", "in_progress")]
        )

    def add(self, delta: TextDelta) -> list[Event]:
        """What a delta brings; the last one ends the response."""
        events: list[Event] = []
        if delta.reasoning:
            events += self._reasoning(delta.reasoning)
        if delta.text or delta.tokens:
            events += self._text(delta)
        for call in delta.calls:
            events += self._call(call)
        if delta.finish_reason is not None and delta.usage is not None:
            events += self._end(delta.finish_reason, delta.usage)
        return self._numbered(events)

    def fail(self, error: ErrorBody) -> list[Event]:
        """The last events of a response that cannot go on."""
        body = ResponseErrorBody(code=error.code or error.type, message=error.message)
        self.response = self._state("failed", error=body)
        return self._numbered([{"type": "response.failed", "response": self.response.model_dump(by_alias=True)}])

    def _reasoning(self, text: str) -> list[Event]:
        events: list[Event] = []
        item = self._open
        if not isinstance(item, GrowingReasoning):
            item = GrowingReasoning(self._next_index())
            events = self._begin(item)
        return [*events, *item.grow(text)]

    def _text(self, delta: TextDelta) -> list[Event]:
        events: list[Event] = []
        item = self._open
        if not isinstance(item, GrowingMessage):
            item = GrowingMessage(self._next_index())
            events = self._begin(item)
        return [*events, *item.grow(delta.text, delta.tokens if self._body.wants_logprobs else ())]

    def _call(self, call: CallDelta) -> list[Event]:
        """A call's name begins it; what comes without one goes on with the call that is open."""
        events: list[Event] = []
        item = self._open
        if call.name is not None or not isinstance(item, GrowingCall):
            assert call.name is not None, "a call begins with its name"
            item = GrowingCall(self._next_index(), call.name)
            events = self._begin(item)
        return [*events, *(item.grow(call.arguments) if call.arguments else ())]

    def _end(self, reason: FinishReason, usage: Usage) -> list[Event]:
        events: list[Event] = []
        if self._open is None:
            events += self._begin(GrowingMessage(0))
        is_cut = reason is FinishReason.LENGTH
        events += self._close("incomplete" if is_cut else "completed")
        self.response = self._state("incomplete" if is_cut else "completed", usage=usage)
        return [
            *events,
            {"type": f"response.{self.response.status}", "response": self.response.model_dump(by_alias=True)},
        ]

    def _next_index(self) -> int:
        return len(self._output) + (self._open is not None)

    def _begin(self, item: GrowingItem) -> list[Event]:
        events = self._close("completed")
        self._open = item
        return [*events, *item.opening()]

    def _close(self, status: ItemStatus) -> list[Event]:
        if self._open is None:
            return []
        events = self._open.closing(status)
        self._output.append(self._open.item(status))
        self._open = None
        return events

    def _numbered(self, events: Iterable[Event]) -> list[Event]:
        numbered = []
        for event in events:
            numbered.append({**event, "sequence_number": self._num_events})
            self._num_events += 1
        return numbered

    def _state(
        self, status: ResponseStatus, *, usage: Usage | None = None, error: ResponseErrorBody | None = None
    ) -> ResponseObject:
        body = self._body
        choice = body.tool_choice or FunctionChoice(type="auto")
        return ResponseObject.model_validate(
            {
                "id": self._id,
                "created_at": self._created,
                "completed_at": int(time.time()) if status == "completed" else None,
                "status": status,
                "error": error,
                "incomplete_details": IncompleteDetails() if status == "incomplete" else None,
                "model": body.model,
                "output": list(self._output),
                "usage": None if usage is None else _usage(usage),
                "instructions": body.instructions,
                "max_output_tokens": body.max_output_tokens,
                "metadata": body.metadata or {},
                "parallel_tool_calls": body.parallel_tool_calls is not False,
                "reasoning": body.reasoning or ReasoningOptions(),
                "temperature": body.temperature,
                "text": body.text or _ASKED_TEXT,
                "tool_choice": choice if choice.type == "function" else choice.type,
                "tools": body.tools or [],
                "top_logprobs": body.top_logprobs or 0,
                "top_p": body.top_p,
                "user": body.user,
            }
        )


def _usage(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputTokensDetails(
            cached_tokens=usage.cached_tokens, cache_write_tokens=usage.prompt_tokens - usage.cached_tokens
        ),
        output_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )
