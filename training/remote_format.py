"""ServerFormat: the chat format and the tokenizer of a model that a running server has. Asks, and computes nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.errors import ChatFormatError
from training.conversation import Message
from training.errors import ServerRefused, TrainingError
from training.model_format import FormattedPrompt
from training.server_connection import ServerConnection
from training.tool_rows import turns_of


@dataclass(frozen=True, slots=True)
class ServerFormat:
    """Every method raises TrainingError, and ChatFormatError with the server's own words where it refuses messages."""

    connection: ServerConnection
    model: str
    eos_token: str
    max_length: int
    """Most tokens of a prompt and its answer, virtual tokens not counted."""

    @classmethod
    def of(cls, connection: ServerConnection, model: str) -> "ServerFormat":
        """Ask a server what a model's prompts end with, and how long they may be."""
        reply = _rendered(connection, model, [{"role": "user", "content": "Hello!"}], (), opens_turn=True)
        eos_token = reply.get("eos_token")
        if not isinstance(eos_token, str):
            raise TrainingError(f"{model}: the server tells no end-of-sequence token, so nobody knows how answers end")
        return cls(connection, model, eos_token, int(reply["max_model_len"]) - int(reply["num_virtual_tokens"]))

    def prompt(self, messages: Sequence[Message], tools: Sequence[Message]) -> FormattedPrompt:
        reply = self._rendered(messages, tools, opens_turn=True)
        return FormattedPrompt(str(reply["prompt"]), list(reply["token_ids"]))

    def whole(self, messages: Sequence[Message], tools: Sequence[Message]) -> str:
        return str(self._rendered(messages, tools, opens_turn=False)["prompt"])

    def tokens(self, text: str) -> list[int]:
        body = {"model": self.model, "prompt": text, "add_special_tokens": False}
        reply = self.connection.ask("POST", "/tokenize", json=body)
        try:
            return [int(id_) for id_ in reply["tokens"]]
        except (LookupError, TypeError, ValueError):
            raise self.connection.not_ours() from None

    def _rendered(self, messages: Sequence[Message], tools: Sequence[Message], *, opens_turn: bool) -> dict[str, Any]:
        try:
            return _rendered(self.connection, self.model, messages, tools, opens_turn=opens_turn)
        except ServerRefused as error:
            raise ChatFormatError(str(error)) from error


def _rendered(
    connection: ServerConnection,
    model: str,
    messages: Sequence[Message],
    tools: Sequence[Message],
    *,
    opens_turn: bool,
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model,
        "messages": list(_on_the_wire(messages)),
        "add_generation_prompt": opens_turn,
    }
    if tools:
        body["tools"] = [_definition(tool) for tool in tools]
    reply = connection.ask("POST", "/v1/chat/completions/render", json=body)
    known = {"prompt", "token_ids", "num_virtual_tokens", "max_model_len"}
    if not isinstance(reply, dict) or not reply.keys() >= known or not isinstance(reply["token_ids"], list):
        raise connection.not_ours()
    return reply


def _definition(tool: Message) -> Message:
    """What the server knows of a definition: all else is in no prompt."""
    taken = ("name", "description", "parameters")
    return {"type": "function", "function": {key: tool["function"][key] for key in taken if key in tool["function"]}}


def _on_the_wire(messages: Sequence[Message]) -> Iterator[dict[str, Any]]:
    """Messages as requests have them: arguments are JSON text, calls and results have ids."""
    for turn in turns_of(messages):
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.tool_calls
        ]
        optional = {
            "tool_calls": calls or None,
            "tool_call_id": turn.tool_call_id,
            "name": turn.name,
            "reasoning_content": turn.reasoning,
        }
        given = {key: value for key, value in optional.items() if value is not None}
        yield {"role": turn.role, "content": turn.content} | given
