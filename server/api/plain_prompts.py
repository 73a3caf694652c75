"""Prompts that are no conversations, from the wire to the text floor. Knows no route."""

from collections.abc import Sequence

from server.text.request import TextPrompt, TokenPrompt


def to_plain_prompt(prompt: str | Sequence[int]) -> TextPrompt | TokenPrompt:
    """A text has the tokenizer's own special tokens before it; token ids are as they are."""
    return TextPrompt(prompt) if isinstance(prompt, str) else TokenPrompt(tuple(prompt))
