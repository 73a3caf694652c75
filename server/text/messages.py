"""A conversation as a chat template can take it: roles, names, tools. Knows no tokens."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial

from transformers import PreTrainedTokenizerBase

from adapters.chat_format import ChatFormat, RenderOptions
from adapters.errors import ChatFormatError, ChatTemplateBusy, ChatTemplateOverrun
from adapters.rendering import Renderer, render_here
from adapters.tool_format import ToolFormat
from adapters.tool_turns import Turn
from server.text.errors import FieldRefused
from server.text.request import ChatPrompt

_SYSTEM_ROLES = ("system", "developer")


def rendered(
    prompt: ChatPrompt,
    chat_format: ChatFormat,
    tokenizer: PreTrainedTokenizerBase,
    *,
    renderer: Renderer = render_here,
) -> str:
    """The prompt's text. Raises FieldRefused for a variable that the template does not ask for, and what `renderer`
    raises."""
    check_variables(chat_format, prompt.options)
    turns = turns_for(chat_format, tokenizer, prompt.turns, renderer=renderer)
    given = ToolFormat(chat_format.template).prepare(turns, prompt.tools, system_prompt=chat_format.system_prompt)
    options = replace(prompt.options, tools=tuple(given.arguments.get("tools", ())))
    return chat_format.render(given.messages, tokenizer, options, renderer=renderer)


def turns_for(
    chat_format: ChatFormat,
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Turn],
    *,
    renderer: Renderer = render_here,
) -> list[Turn]:
    """The turns in the roles and fields that templates know.

    A developer is a system. A name stands before the content of a message, unless the template shows it itself.
    """
    shows_name = cache(partial(_shows_name, chat_format, tokenizer, renderer))  # by role: a conversation has few
    fitted = []
    for turn in turns:
        if turn.role in _SYSTEM_ROLES:
            turn = replace(turn, role="system")
        if turn.name is not None and turn.role != "tool" and not shows_name(turn.role):
            turn = replace(turn, name=None, content=f"{turn.name}: {turn.content}")
        fitted.append(turn)
    return fitted


def check_variables(chat_format: ChatFormat, options: RenderOptions) -> None:
    """Raise FieldRefused for a variable that the template does not ask for: it would be accepted and ignored."""
    for name in options.variables:
        if name not in chat_format.names:
            field = name if name == "reasoning_effort" else f"chat_template_kwargs.{name}"
            raise FieldRefused(field, "this model's chat template does not ask for it")


def _shows_name(chat_format: ChatFormat, tokenizer: PreTrainedTokenizerBase, renderer: Renderer, role: str) -> bool:
    """Whether what the template makes of a message depends on its name."""
    if "name" not in chat_format.names:
        return False
    texts = set()
    for name in ("Ada", "Zoe"):
        try:
            message = {"role": role, "content": "hello", "name": name}
            texts.add(chat_format.render([message], tokenizer, renderer=renderer))
        except (ChatTemplateBusy, ChatTemplateOverrun):
            raise
        except ChatFormatError:  # it may want another order of roles
            return False
    return len(texts) == 2
