"""Rows of the four known forms become conversations; what is wrong with one names its field. Reads no file."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from training.conversation import Conversation, Message, alpaca
from training.messages import FieldProblem, conversation_of, read_list, text_of, type_name

FormName = Literal["alpaca", "messages", "sharegpt", "prompt_completion"]
DataFormat = Literal["auto", "alpaca", "messages", "sharegpt", "prompt_completion"]

_COLUMNS: dict[FormName, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "prompt_completion": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
}
"""What each form needs, in the order in which they are tried."""
_SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}


def detect_form(names: Iterable[str]) -> FormName | None:
    """The form that has all its columns among these names; what has an instruction alone is alpaca's."""
    known = set(names)
    for form, columns in _COLUMNS.items():
        if known.issuperset(columns):
            return form
    return "alpaca" if "instruction" in known else None


def missing_columns(form: FormName, names: Iterable[str]) -> list[str]:
    known = set(names)
    return [column for column in _COLUMNS[form] if column not in known]


def known_forms() -> str:
    """For a message: every form with its columns."""
    return ", ".join(f"{form}: {' and '.join(columns)}" for form, columns in _COLUMNS.items())


def convert(form: FormName, value: Any, *, place: str, problems: list[FieldProblem]) -> Conversation | None:
    """One row, or None where something is wrong with it, which goes to `problems`."""
    if not isinstance(value, Mapping):
        problems.append(FieldProblem(None, f"must be an object with {_listed(form)}, is {type_name(value)}"))
        return None
    missing = [field for field in _COLUMNS[form] if field not in value]
    problems.extend(FieldProblem(field, "missing") for field in missing)
    match form:
        case "alpaca":
            return _alpaca(value, place, problems)
        case "messages":
            messages = [] if missing else read_list(value["messages"], "messages", problems)
        case "sharegpt":
            messages = [] if missing else list(_sharegpt(value, problems))
        case "prompt_completion":
            messages = [] if missing else list(_prompt_completion(value, problems))
    if problems:
        return None
    return conversation_of(messages, value, field=_COLUMNS[form][-1], place=place, problems=problems)


def _alpaca(value: Mapping[str, Any], place: str, problems: list[FieldProblem]) -> Conversation | None:
    texts = {}
    for field in ("instruction", "input", "output"):
        content = value.get(field, "")
        texts[field] = "" if field == "input" and content is None else text_of(content, field, problems)
    if value.get("instruction") == "" and not value.get("input"):
        problems.append(FieldProblem("instruction", "empty, and 'input' too"))
    if problems:
        return None
    return alpaca(texts["instruction"], texts["input"], texts["output"], place=place)


def _sharegpt(value: Mapping[str, Any], problems: list[FieldProblem]) -> Iterator[Message]:
    """Turns of `from` and `value`; a `system` column stands before them, a `function_call` holds a call as JSON."""
    if value.get("system"):
        yield {"role": "system", "content": value["system"]}
    for index, turn in enumerate(read_list(value["conversations"], "conversations", problems)):
        field = f"conversations[{index}]"
        if not isinstance(turn, Mapping):
            problems.append(FieldProblem(field, f"must be an object with from and value, is {type_name(turn)}"))
            continue
        speaker = turn.get("from", turn.get("role"))
        role = _SHAREGPT_ROLES.get(speaker) if isinstance(speaker, str) else None
        if role is None:
            known = ", ".join(_SHAREGPT_ROLES)
            problems.append(FieldProblem(f"{field}.from", f"{str(speaker)[:40]!r} is not known (known: {known})"))
            continue
        content = turn.get("value", turn.get("content"))
        if speaker == "function_call":
            yield from _function_call(content, f"{field}.value", problems)
        else:
            yield {"role": role, "content": content}


def _function_call(content: Any, field: str, problems: list[FieldProblem]) -> Iterator[Message]:
    try:
        call = json.loads(content)
        function = {"name": call["name"], "arguments": call["arguments"]}
    except (ValueError, TypeError, LookupError, RecursionError):
        problems.append(FieldProblem(field, "must be JSON of an object with name and arguments"))
        return
    yield {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}


def _prompt_completion(value: Mapping[str, Any], problems: list[FieldProblem]) -> Iterator[Any]:
    """A prompt that is text is what the user says; both may be lists of messages instead."""
    for field, role in (("prompt", "user"), ("completion", "assistant")):
        content = value[field]
        if isinstance(content, list):
            yield from content
        else:
            yield {"role": role, "content": text_of(content, field, problems)}


def _listed(form: FormName) -> str:
    if form == "alpaca":
        return "instruction, input and output"
    return " and ".join(_COLUMNS[form])
