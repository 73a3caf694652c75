"""How messages become token ids, at training and at serving time alike; travels with the adapter. Knows no HTTP."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedTokenizerBase

from adapters.errors import ChatFormatError
from adapters.rendering import Renderer, Rendering, render_here

MAX_TEMPLATE_CHARS = 65_536
_CODE_OPEN = re.compile(r"\{[{%]")
_CODE_CLOSE = re.compile(r"[%}]\}")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

HUMAN_ASSISTANT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] | trim }}\n\n"
    "{% elif message['role'] == 'user' %}{{ ('Human: ' + message['content']) | trim }}\n\n"
    "{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}\n\n"
    "{% else %}{{ raise_exception('this chat format has no role ' + message['role']) }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
"""The classic instruction recipe, for base models that have no chat template of their own."""


class SamplingDefaults(BaseModel):
    """Sampling that an adapter asks for; a request may override each value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=1_000_000)
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderOptions:
    """What a request may ask of the template beside its messages.

    `variables` are handed to the template by name. With `continue_final_message` the text ends where the last message
    does, and the assistant goes on from there.
    """

    tools: tuple[Mapping[str, Any], ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)
    add_generation_prompt: bool = True
    continue_final_message: bool = False


class ChatFormat(BaseModel):
    """A Jinja chat template and what belongs to it.

    `add_special_tokens` says whether the tokenizer adds its own (BOS) to the rendered text: a chat template spells them
    out itself, the plain recipe leaves them to the tokenizer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    template: str = Field(min_length=1, max_length=MAX_TEMPLATE_CHARS)
    add_special_tokens: bool = False
    system_prompt: str | None = Field(default=None, max_length=MAX_TEMPLATE_CHARS)
    stop: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(default=(), max_length=4)
    sampling: SamplingDefaults = SamplingDefaults()

    @property
    def fingerprint(self) -> str:
        """sha256 in hex of what decides a prompt's token ids: template, system prompt, special tokens."""
        parts = [self.template, self.system_prompt, self.add_special_tokens]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @cached_property
    def names(self) -> frozenset[str]:
        """Every word of the template's code that may be a variable or a field: what is not here has no effect on it."""
        return frozenset(word for code in _code_of(self.template) for word in _WORD.findall(code))

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        options: RenderOptions = RenderOptions(),
        *,
        renderer: Renderer = render_here,
    ) -> str:
        """The prompt's text, up to where the assistant begins to speak, unless the options say otherwise.

        Raises ChatFormatError when the template refuses the messages, and what `renderer` raises.
        """
        conversation = list(messages)
        if self.system_prompt is not None and (not conversation or conversation[0]["role"] != "system"):
            conversation.insert(0, {"role": "system", "content": self.system_prompt})
        if not conversation:
            raise ChatFormatError("messages: there are none")
        if options.continue_final_message and options.add_generation_prompt:
            raise ChatFormatError("continue_final_message and add_generation_prompt exclude each other")
        return renderer(
            Rendering(
                template=self.template,
                messages=conversation,
                tools=options.tools,
                variables={**tokenizer.special_tokens_map, **options.variables},
                add_generation_prompt=options.add_generation_prompt,
                continue_final_message=options.continue_final_message,
            )
        )

    def encode(
        self,
        messages: Sequence[Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        options: RenderOptions = RenderOptions(),
    ) -> list[int]:
        """Token ids of the rendered prompt. Raises ChatFormatError."""
        text = self.render(messages, tokenizer, options)
        return list(tokenizer(text, add_special_tokens=self.add_special_tokens)["input_ids"])


def _code_of(template: str) -> Iterator[str]:
    """What stands between the braces of statements and expressions; each character is looked at once."""
    position = 0
    while (start := _CODE_OPEN.search(template, position)) is not None:
        end = _CODE_CLOSE.search(template, start.end())
        if end is None:
            return
        yield template[start.end() : end.start()]
        position = end.end()


def default_chat_format(tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
    """The base model's own chat template, or the Human/Assistant recipe where it has none."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if template:
        return ChatFormat(template=template, add_special_tokens=False)
    return ChatFormat(template=HUMAN_ASSISTANT_TEMPLATE, add_special_tokens=True)
