"""ToolFormat: a conversation with tools, as a chat template takes it. Knows no tokenizer and renders nothing itself."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from adapters.hermes import CALL_OPEN, call_text, response_text, signature_of, system_text
from adapters.tool_turns import FunctionTool, ToolCall, Turn

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TemplateInput:
    """What a chat template is rendered with: its messages, and arguments beside them."""

    messages: list[Message]
    arguments: dict[str, Any] = field(default_factory=dict)


def takes_tools(template: str) -> bool:
    """Whether a chat template has a `tools` argument, and asks for calls in the form that `ToolCallParser` reads.

    Templates that ask for calls in another form (Llama 3's bare JSON, Mistral's `[TOOL_CALLS]`, function tags) are
    given tools as text instead, so that one form of calls is spoken in the whole conversation.
    """
    reads_calls = CALL_OPEN in template and "arguments" in template and "<function=" not in template
    return reads_calls and re.search(r"\btools\b", template) is not None


class ToolFormat:
    """How tools enter the prompts of one chat template: by its own `tools` argument, or as text in the Hermes form."""

    def __init__(self, template: str) -> None:
        self.is_native = takes_tools(template)

    def prepare(
        self, turns: Sequence[Turn], tools: Sequence[FunctionTool], *, system_prompt: str | None = None
    ) -> TemplateInput:
        """The conversation for the template. Without tools and calls, messages are what they were.

        `system_prompt` is what the chat format would put before a conversation without a system turn: tools in text
        form are written behind it, since a template takes one system turn only.
        """
        if self.is_native:
            arguments = {"tools": [signature_of(tool) for tool in tools]} if tools else {}
            return TemplateInput([_native_message(turn, turns) for turn in turns], arguments)
        messages = _text_messages(turns)
        return TemplateInput(_with_tools(messages, tools, system_prompt) if tools else messages)


def _native_message(turn: Turn, turns: Sequence[Turn]) -> Message:
    message: Message = {"role": turn.role, "content": turn.content}
    if turn.tool_calls:
        message["tool_calls"] = [_native_call(call) for call in turn.tool_calls]
    if turn.role == "tool":
        message["tool_call_id"] = turn.tool_call_id
        message["name"] = turn.name or _called_name(turn.tool_call_id, turns)
    elif turn.name is not None:
        message["name"] = turn.name
    if turn.reasoning is not None:
        message["reasoning_content"] = turn.reasoning
    return message


def _native_call(call: ToolCall) -> Message:
    """Templates write arguments with `tojson`, so they are parsed here; text that is no JSON object stays text."""
    arguments: object = call.arguments
    try:
        parsed = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        parsed = None
    if isinstance(parsed, dict):
        arguments = parsed
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _called_name(call_id: str | None, turns: Iterable[Turn]) -> str | None:
    return next((call.name for turn in turns for call in turn.tool_calls if call.id == call_id), None)


def _text_messages(turns: Sequence[Turn]) -> list[Message]:
    """Calls become text of the assistant; what functions returned, one user message for all that stand together."""
    messages: list[Message] = []
    for is_tool, group in groupby(turns, key=lambda turn: turn.role == "tool"):
        if is_tool:
            messages.append({"role": "user", "content": "\n".join(response_text(turn.content) for turn in group)})
        else:
            messages.extend(_text_message(turn) for turn in group)
    return messages


def _text_message(turn: Turn) -> Message:
    parts = [turn.content] if turn.content or not turn.tool_calls else []
    message: Message = {"role": turn.role, "content": "\n".join([*parts, *map(call_text, turn.tool_calls)])}
    if turn.name is not None:
        message["name"] = turn.name
    if turn.reasoning is not None:
        message["reasoning_content"] = turn.reasoning
    return message


def _with_tools(messages: list[Message], tools: Sequence[FunctionTool], system_prompt: str | None) -> list[Message]:
    text = system_text(tools)
    if messages and messages[0]["role"] == "system":
        first, rest = messages[0], messages[1:]
        return [first | {"content": _behind(first["content"], text)}, *rest]
    return [{"role": "system", "content": _behind(system_prompt, text)}, *messages]


def _behind(prompt: str | None, text: str) -> str:
    return f"{prompt}\n\n{text}" if prompt else text
