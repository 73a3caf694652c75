"""Checks the messages and tools of one row, field by field, and brings them into one shape. Reads no file."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.conversation import Conversation, Message

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
"""As the server takes them: a developer is a system."""
_FIELDS = {"assistant": ("tool_calls", "weight", "reasoning_content"), "tool": ("tool_call_id", "name")}
_TEXT_FIELDS = ("reasoning_content", "tool_call_id", "name")
_KNOWN = {"role", "content", "tool_calls", "weight", "reasoning_content", "tool_call_id", "name"}


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one row, and in which of its fields; None is the row itself."""

    field: str | None
    text: str

    def __str__(self) -> str:
        return f": {self.text}" if self.field is None else f", field '{self.field}': {self.text}"


def conversation_of(
    messages: Sequence[Any], row: Mapping[str, Any], *, field: str, place: str, problems: list[FieldProblem]
) -> Conversation | None:
    """The messages up to the last that is learnt, with the row's `tools`; None where something is wrong with them.

    What stands behind the last answer teaches nothing, and is left out.
    """
    checked = [_message(message, f"{field}[{index}]", problems) for index, message in enumerate(messages)]
    tools = list(_tools(row.get("tools"), problems))
    if problems:
        return None
    silent = {index for index, message in enumerate(messages) if message.get("weight") == 0}
    learnt = [i for i, message in enumerate(checked) if message["role"] == "assistant" and i not in silent]
    if not learnt:
        problems.append(FieldProblem(field, "has no message of the assistant to learn"))
    elif learnt[-1] == 0:
        problems.append(FieldProblem(field, "begins with its only answer: there is nothing to answer"))
    if problems:
        return None
    end = learnt[-1] + 1
    silent = {index for index in silent if index < end and checked[index]["role"] == "assistant"}
    return Conversation(tuple(checked[:end]), tuple(tools), frozenset(silent), place)


def read_list(value: Any, field: str, problems: list[FieldProblem]) -> list[Any]:
    """A list, or JSON text of one, as CSV has to hold it."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            problems.append(FieldProblem(field, "is text, but not JSON of a list"))
            return []
    if not isinstance(value, list):
        problems.append(FieldProblem(field, f"must be a list, is {type_name(value)}"))
        return []
    if not value:
        problems.append(FieldProblem(field, "empty"))
    return value


def text_of(value: Any, field: str, problems: list[FieldProblem]) -> str:
    """A string of whole characters; anything else goes to `problems`."""
    if not isinstance(value, str):
        problems.append(FieldProblem(field, f"must be a string, is {type_name(value)}"))
    elif not _is_unicode(value):
        problems.append(FieldProblem(field, "holds half of a surrogate pair"))
    else:
        return value
    return ""


def type_name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _message(value: Any, field: str, problems: list[FieldProblem]) -> Message:
    if not isinstance(value, Mapping):
        problems.append(FieldProblem(field, f"must be an object with role and content, is {type_name(value)}"))
        return {}
    given = {key: content for key, content in value.items() if content is not None}
    role = _ROLES.get(given["role"]) if isinstance(given.get("role"), str) else None
    if role is None:
        shown = str(given.get("role"))[:40]
        problems.append(FieldProblem(f"{field}.role", f"{shown!r} is not known (known: {', '.join(_ROLES)})"))
        return {}
    taken = {"role", "content", *_FIELDS.get(role, ())}
    for key in sorted(given.keys() & _KNOWN - taken):
        problems.append(FieldProblem(f"{field}.{key}", f"a message of role {given['role']} does not have it here"))
    if given.get("weight", 1) not in (0, 1):
        problems.append(FieldProblem(f"{field}.weight", "must be 0 or 1"))
    message: dict[str, Any] = {"role": role, "content": _content(given, field, problems)}
    for key in _TEXT_FIELDS:
        if key in given:
            message[key] = text_of(given[key], f"{field}.{key}", problems)
    if given.get("tool_calls"):
        message["tool_calls"] = list(_calls(given["tool_calls"], f"{field}.tool_calls", problems))
    return message


def _content(message: Mapping[str, Any], field: str, problems: list[FieldProblem]) -> str:
    """Text, or the text of all parts; a message that calls functions needs none."""
    content = message.get("content")
    if content is None and message.get("tool_calls"):
        return ""
    if not isinstance(content, list):
        return text_of(content, f"{field}.content", problems)
    texts = []
    for index, part in enumerate(content):
        if isinstance(part, Mapping) and part.get("type") == "text":
            texts.append(text_of(part.get("text"), f"{field}.content[{index}].text", problems))
        else:
            problems.append(FieldProblem(f"{field}.content[{index}]", "must be a part of type 'text'"))
    return "".join(texts)


def _calls(value: Any, field: str, problems: list[FieldProblem]) -> Iterator[Message]:
    """Calls as templates write them: arguments are an object, also where they were stored as JSON text."""
    for index, call in enumerate(read_list(value, field, problems)):
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            problems.append(FieldProblem(f"{field}[{index}]", "must be an object with function.name"))
            continue
        arguments = _object(function.get("arguments", {}))
        if arguments is None:
            problems.append(FieldProblem(f"{field}[{index}].function.arguments", "must be an object, or JSON of one"))
            continue
        identity = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
        yield {**identity, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _tools(value: Any, problems: list[FieldProblem]) -> Iterator[Message]:
    """Definitions as templates take them, in OpenAI's shape; bare functions are put into it."""
    if value is None or value == "" or value == []:
        return
    for index, tool in enumerate(read_list(value, "tools", problems)):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            problems.append(FieldProblem(f"tools[{index}]", "must be an object with function.name"))
            continue
        known = {key: content for key, content in function.items() if content is not None}
        if not isinstance(known.get("description", ""), str):
            problems.append(FieldProblem(f"tools[{index}].function.description", "must be a string"))
        if not isinstance(known.get("parameters", {}), Mapping):
            problems.append(FieldProblem(f"tools[{index}].function.parameters", "must be an object"))
        yield {"type": "function", "function": known}


def _object(value: Any) -> dict[str, Any] | None:
    if isinstance(value, str):
        try:
            value = json.loads(value or "{}")
        except (ValueError, RecursionError):
            return None
    return dict(value) if isinstance(value, Mapping) else None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
