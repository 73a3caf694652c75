"""Messages as a chat template can take them. Knows no tokens."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from transformers import PreTrainedTokenizerBase

from adapters.chat_format import ChatFormat, RenderOptions
from adapters.errors import ChatFormatError
from server.text.errors import FieldRefused

_SYSTEM_ROLES = ("system", "developer")


def messages_for(
    chat_format: ChatFormat, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The messages in the roles and fields that templates know.

    A developer is a system. A name stands before the content of a message, unless the template shows it itself.
    """
    fitted = [dict(message) for message in messages]
    for message in fitted:
        if message["role"] in _SYSTEM_ROLES:
            message["role"] = "system"
        if "name" in message and message["role"] != "tool" and not _shows_name(chat_format, tokenizer, message):
            message["content"] = f"{message.pop('name')}: {message['content'] or ''}"
    return fitted


def check_variables(chat_format: ChatFormat, options: RenderOptions) -> None:
    """Raise FieldRefused for a variable that the template does not ask for: it would be accepted and ignored."""
    for name in options.variables:
        if not mentions(chat_format, name):
            field = name if name == "reasoning_effort" else f"chat_template_kwargs.{name}"
            raise FieldRefused(field, "this model's chat template does not ask for it")


def mentions(chat_format: ChatFormat, name: str) -> bool:
    """Whether a template speaks of a variable or a field of messages."""
    return name in chat_format.names


def _shows_name(chat_format: ChatFormat, tokenizer: PreTrainedTokenizerBase, message: Mapping[str, Any]) -> bool:
    """Whether what the template makes of a message depends on its name."""
    if not mentions(chat_format, "name"):
        return False
    texts = set()
    for name in ("Ada", "Zoe"):
        probe = {"role": message["role"], "content": "hello", "name": name}
        with suppress(ChatFormatError):  # it may want another order of roles
            texts.add(chat_format.render([probe], tokenizer))
    return len(texts) == 2
