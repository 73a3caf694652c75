"""The messages and tools of a row as turns and functions, with the ids that a server wants. Knows no template."""

import json
from collections.abc import Iterable, Iterator
from itertools import count

from adapters.tool_turns import FunctionTool, ToolCall, Turn
from training.conversation import Message


def turns_of(messages: Iterable[Message]) -> list[Turn]:
    """One turn for each message. Calls without an id are numbered; results without one go to the oldest open call."""
    numbers = (f"call_{number}" for number in count())
    return list(_turns(messages, numbers))


def functions_of(tools: Iterable[Message]) -> tuple[FunctionTool, ...]:
    """The functions of definitions in OpenAI's shape."""
    functions = [tool["function"] for tool in tools]
    return tuple(
        FunctionTool(function["name"], function.get("description"), function.get("parameters"))
        for function in functions
    )


def _turns(messages: Iterable[Message], numbers: Iterator[str]) -> Iterator[Turn]:
    open_calls: list[str] = []
    for message in messages:
        calls = tuple(_call(call, numbers) for call in message.get("tool_calls", ()))
        open_calls.extend(call.id for call in calls)
        call_id = None
        if message["role"] == "tool":
            call_id = message.get("tool_call_id") or (open_calls[0] if open_calls else next(numbers))
            open_calls = [each for each in open_calls if each != call_id]
        yield Turn(
            message["role"],
            str(message["content"]),
            name=message.get("name"),
            tool_calls=calls,
            tool_call_id=call_id,
            reasoning=message.get("reasoning_content"),
        )


def _call(call: Message, numbers: Iterator[str]) -> ToolCall:
    function = call["function"]
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return ToolCall(call.get("id") or next(numbers), function["name"], arguments)
