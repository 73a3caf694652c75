"""A request of the Responses API as the chat request that asks for the same. Knows no route and no text floor.

So both have one way to the model: the same rendering, tools, structured output and sampling.
"""

from collections.abc import Iterable
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from server.protocol.chat import ChatCompletionRequest
from server.protocol.response_items import (
    FunctionCallItem,
    FunctionCallOutputItem,
    InputItem,
    MessageItem,
    ReasoningItem,
    TextPart,
)
from server.protocol.responses import FunctionTool, ResponsesRequest, TextFormat

_NAMES = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "logprobs": "include",
}
"""What the Responses API calls the fields of a chat."""


def to_chat_request(body: ResponsesRequest) -> ChatCompletionRequest:
    """The chat request. Raises RequestValidationError, with the Responses API's names, for what chats refuse."""
    fields = {
        "model": body.model,
        "messages": [*_instructions(body), *_messages(body.input)],
        "max_completion_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "logprobs": True if body.wants_logprobs else None,
        "top_logprobs": body.top_logprobs,
        "tools": [_tool(tool) for tool in body.tools or ()] or None,
        "tool_choice": _tool_choice(body),
        "parallel_tool_calls": body.parallel_tool_calls if body.tools else None,
        "response_format": _response_format(body.text.format) if body.text and body.text.format else None,
        "reasoning_effort": body.reasoning.effort if body.reasoning else None,
        "metadata": body.metadata,
        "service_tier": body.service_tier,
        "user": body.user,
        "safety_identifier": body.safety_identifier,
        "prompt_cache_key": body.prompt_cache_key,
    }
    try:
        return ChatCompletionRequest.model_validate(fields)
    except ValidationError as error:
        problems = [{**problem, "loc": ("body", *_renamed(problem["loc"]))} for problem in error.errors()]
        raise RequestValidationError(problems) from error


def _renamed(path: tuple[int | str, ...]) -> tuple[int | str, ...]:
    if not path:
        return path
    name = _NAMES.get(str(path[0]), path[0])
    return (name,) if name == "input" else (name, *path[1:])  # messages and items are counted otherwise


def _instructions(body: ResponsesRequest) -> list[dict[str, Any]]:
    return [] if body.instructions is None else [{"role": "system", "content": body.instructions}]


def _messages(items: Iterable[InputItem]) -> list[dict[str, Any]]:
    """Messages of a chat. What one turn of the assistant has in several items, a chat has in one message."""
    messages: list[dict[str, Any]] = []
    for item in items:
        if isinstance(item, FunctionCallOutputItem):
            messages.append({"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)})
        elif isinstance(item, MessageItem) and item.role != "assistant":
            messages.append({"role": item.role, "content": _text(item.content)})
        else:
            turn = _open_turn(messages, item)
            if isinstance(item, MessageItem):
                turn["content"] = _text(item.content)
            elif isinstance(item, ReasoningItem):
                turn["reasoning_content"] = "".join(part.text for part in item.content or ())
            else:
                turn.setdefault("tool_calls", []).append(_call(item))
    return messages


def _open_turn(messages: list[dict[str, Any]], item: MessageItem | ReasoningItem | FunctionCallItem) -> dict[str, Any]:
    """The assistant's message that an item belongs to: the last one, unless the item begins a new one.

    A turn has reasoning, then text, then calls, each of the first two once.
    """
    last = messages[-1] if messages else {}
    begins = isinstance(item, ReasoningItem) or (
        isinstance(item, MessageItem) and ("content" in last or "tool_calls" in last)
    )
    if last.get("role") == "assistant" and not begins:
        return last
    messages.append({"role": "assistant"})
    return messages[-1]


def _text(parts: Iterable[TextPart]) -> str:
    return "".join(part.text for part in parts)


def _call(item: FunctionCallItem) -> dict[str, Any]:
    return {
        "id": item.call_id,
        "type": "function",
        "function": {"name": item.name, "arguments": item.arguments},
    }


def _tool(tool: FunctionTool) -> dict[str, Any]:
    return {"type": "function", "function": tool.model_dump(exclude={"type"})}


def _tool_choice(body: ResponsesRequest) -> dict[str, Any] | None:
    choice = body.tool_choice
    if choice is None or (not body.tools and choice.type in ("none", "auto")):
        return None
    return {"type": choice.type, "function": None if choice.name is None else {"name": choice.name}}


def _response_format(asked: TextFormat) -> dict[str, Any]:
    if asked.type != "json_schema":
        return {"type": asked.type}
    schema = {
        "name": asked.name,
        "description": asked.description,
        "schema": asked.json_schema,
        "strict": asked.strict,
    }
    return {"type": "json_schema", "json_schema": schema}
