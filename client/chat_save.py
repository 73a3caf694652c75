"""Writes a conversation to a file. Knows no server."""

import json
from pathlib import Path

from client.conversation import Conversation
from client.errors import ClientError
from client.safe_text import printable


class NotSaved(ClientError):
    """The conversation is not in the file."""


def save(conversation: Conversation, path: Path) -> None:
    """Write the turns as JSON, where the name ends in .json, else as Markdown. Raises NotSaved, also for a file that
    is there already.
    """
    path = path.expanduser()
    write = _as_json if path.suffix == ".json" else _as_markdown
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(write(conversation))
    except FileExistsError:
        raise NotSaved(f"{path}: there is such a file already") from None
    except OSError as error:
        raise NotSaved(f"{path}: cannot be written: {error.strerror}") from error
    except ValueError as error:  # a name that no file can have
        raise NotSaved(f"{path}: cannot be written: {error}") from error


def _as_json(conversation: Conversation) -> str:
    content = {"model": conversation.model, "messages": conversation.all_messages()}
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def _as_markdown(conversation: Conversation) -> str:
    turns = [f"## {message['role']}\n\n{message['content'].strip()}\n" for message in conversation.all_messages()]
    return printable("\n".join([f"# {conversation.model}\n", *turns]))
