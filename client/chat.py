"""A conversation in the terminal, streamed from a running server. Keeps its history here; knows no model."""

import json
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rich.console import Console

from client.connection import Connection
from client.errors import ClientError, ServerRefused

HELP = "/exit ends the chat, /clear forgets the conversation"
BROKEN_OFF = "the answer broke off"


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
            for data in _events(lines):
                pieces.append(_text_of(data))
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
            console.print(printable(piece), end="", markup=False, highlight=False, soft_wrap=True)
        console.print()
    except KeyboardInterrupt:
        console.print("[dim] (cut off)[/dim]")
    except ClientError as error:
        if not console.is_terminal:
            raise
        console.print(f"[red]{error}[/red]")


def printable(text: str) -> str:
    """The text without control characters: a model must not be able to write to the terminal as a program can."""
    return "".join(letter for letter in text if letter in "\n\t" or unicodedata.category(letter) != "Cc")


def _next_line(read_line: Callable[[], str]) -> str | None:
    try:
        return read_line().strip()
    except (EOFError, KeyboardInterrupt):
        return None


def _events(lines: Iterator[str]) -> Iterator[str]:
    """The data of a server-sent stream up to [DONE]; comments and blank lines are left out.

    Raises ServerRefused when the stream ends without [DONE].
    """
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        yield data
    raise ServerRefused(BROKEN_OFF)


def _text_of(data: str) -> str:
    """The text in one chunk, often none. Raises ServerRefused for an error, and for what is no chunk."""
    try:
        chunk = json.loads(data)
        if "error" in chunk:
            raise ServerRefused(str(chunk["error"]["message"]))
        return "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ServerRefused(BROKEN_OFF) from None
