"""Renders a chat template: what goes in, and what comes out in this process. Knows no tokenizer and no adapter."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from adapters.errors import ChatFormatError

MAX_RENDERED_CHARS = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """A template and all that it can see; `variables` are special tokens, and what a request adds to them."""

    template: str
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]]
    variables: Mapping[str, Any]
    add_generation_prompt: bool
    continue_final_message: bool


Renderer = Callable[[Rendering], str]
"""Whoever renders raises ChatFormatError when the template refuses what it is given."""


def render_here(rendering: Rendering) -> str:
    """The text, rendered in transformers' Jinja sandbox by this thread, however long it takes.

    Raises ChatFormatError.
    """
    try:
        rendered: Any = render_jinja_template(
            conversations=[[_without_nones(message) for message in rendering.messages]],
            tools=[dict(tool) for tool in rendering.tools] or None,
            chat_template=rendering.template,
            add_generation_prompt=rendering.add_generation_prompt,
            continue_final_message=rendering.continue_final_message,
            **rendering.variables,
        )
    except Exception as error:  # a template is a program that came with an adapter: it may raise anything
        raise ChatFormatError(f"messages: the chat template refuses them: {error}") from error
    text = str(rendered[0][0])  # of the only conversation; beside texts stand masks that nobody asked for
    if len(text) > MAX_RENDERED_CHARS:
        raise ChatFormatError(
            f"messages: the chat template makes {len(text)} characters of them, over the limit of {MAX_RENDERED_CHARS}"
        )
    return text


def _without_nones(message: Mapping[str, Any]) -> dict[str, Any]:
    """Templates ask whether a field is there, not whether it is None."""
    return {key: value for key, value in message.items() if value is not None}
