"""The Hermes form of tools: tags, and the texts that stand between them. Knows no template and no grammar."""

import json
from collections.abc import Iterable

from adapters.tool_turns import FunctionTool, ToolCall

CALL_OPEN = "<tool_call>"
CALL_CLOSE = "</tool_call>"
RESPONSE_OPEN = "<tool_response>"
RESPONSE_CLOSE = "</tool_response>"


def call_head(name: str) -> str:
    """What stands before the arguments of a call, after the line of the opening tag."""
    return f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": '


CALL_TAIL = "}"
"""What stands behind the arguments."""


def call_text(call: ToolCall) -> str:
    """A call, as the model writes it; arguments that are empty become an empty object."""
    return f"{CALL_OPEN}\n{call_head(call.name)}{call.arguments or '{}'}{CALL_TAIL}\n{CALL_CLOSE}"


def response_text(content: str) -> str:
    """What a function gave back, as the model reads it."""
    return f"{RESPONSE_OPEN}\n{content}\n{RESPONSE_CLOSE}"


def system_text(tools: Iterable[FunctionTool]) -> str:
    """The part of the system prompt that tells the model which functions there are, and how they are called."""
    signatures = "\n".join(json.dumps(signature_of(tool), ensure_ascii=False) for tool in tools)
    return (
        "You may call functions to help with the user's request. These are the functions, one in each line:\n"
        f"<tools>\n{signatures}\n</tools>\n"
        "To call one, write its name and its arguments as JSON between these tags, and nothing after them; "
        "use the tags once for each call:\n"
        f'{CALL_OPEN}\n{{"name": <function name>, "arguments": <JSON object of arguments>}}\n{CALL_CLOSE}\n'
        f"What a function returns is given to you between {RESPONSE_OPEN} and {RESPONSE_CLOSE}."
    )


def signature_of(tool: FunctionTool) -> dict[str, object]:
    """The function as OpenAI's `tools` has it, which is also what chat templates take."""
    function: dict[str, object] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = dict(tool.parameters) if tool.parameters is not None else {"type": "object"}
    return {"type": "function", "function": function}
