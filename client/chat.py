"""A conversation in the terminal, streamed from a running server. Keeps its history here; knows no model."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from client.connection import Connection
from client.errors import ClientError, ServerRefused

HELP = "/exit ends the chat, /clear forgets the conversation"


@dataclass(slots=True)
class Conversation:
    """Turns with one model of a server; a turn that fails or is cut off leaves the history as it was."""

    connection: Connection
    model: str
    messages: list[dict[str, str]] = field(default_factory=list)

    def answer(self, text: str) -> Iterator[str]:
        """Say `text` and yield the answer as it comes. Raises ServerUnreachable, ServerRefused."""
        messages = [*self.messages, {"role": "user", "content": text}]
        body = {"model": self.model, "messages": messages, "stream": True}
        pieces: list[str] = []
        with self.connection.lines("/v1/chat/completions", body=body) as lines:
            for chunk in _chunks(lines):
                if "error" in chunk:
                    raise ServerRefused(str(chunk["error"].get("message", "the answer broke off")))
                for choice in chunk.get("choices", []):
                    pieces.append(choice.get("delta", {}).get("content") or "")
                    yield pieces[-1]
        self.messages = [*messages, {"role": "assistant", "content": "".join(pieces)}]


def run_chat(conversation: Conversation, console: Console, read_line: Callable[[], str]) -> None:
    """Talk until /exit or the end of the input. Ctrl-C cuts an answer off.

    Raises ClientError where the input is not a terminal: there is nobody to try again.
    """
    if console.is_terminal:
        console.print(f"[dim]{conversation.model} at {conversation.connection.url}; {HELP}[/dim]")
    while (text := _next_line(read_line)) is not None:
        if text == "/exit":
            return
        if text == "/clear":
            conversation.messages = []
        elif text.startswith("/"):
            console.print(HELP)
        elif text:
            _turn(conversation, console, text)


def _turn(conversation: Conversation, console: Console, text: str) -> None:
    try:
        for piece in conversation.answer(text):
            console.print(piece, end="", markup=False, highlight=False, soft_wrap=True)
        console.print()
    except KeyboardInterrupt:
        console.print("[dim] (cut off)[/dim]")
    except ClientError as error:
        if not console.is_terminal:
            raise
        console.print(f"[red]{error}[/red]")


def _next_line(read_line: Callable[[], str]) -> str | None:
    try:
        return read_line().strip()
    except (EOFError, KeyboardInterrupt):
        return None


def _chunks(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The events of a server-sent stream up to [DONE]; comments and blank lines are left out."""
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        yield json.loads(data)
