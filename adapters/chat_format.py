"""How messages become token ids, at training and at serving time alike; travels with the adapter. Knows no HTTP."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedTokenizerBase

from adapters.errors import ChatFormatError

MAX_TEMPLATE_CHARS = 65_536

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

    def render(self, messages: Sequence[Mapping[str, str]], tokenizer: PreTrainedTokenizerBase) -> str:
        """The prompt's text, up to where the assistant begins to speak.

        Runs in transformers' Jinja sandbox. Raises ChatFormatError when the template refuses the messages.
        """
        conversation = [dict(message) for message in messages]
        if self.system_prompt is not None and (not conversation or conversation[0]["role"] != "system"):
            conversation.insert(0, {"role": "system", "content": self.system_prompt})
        try:
            text = tokenizer.apply_chat_template(
                conversation, chat_template=self.template, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # a template is a program that came with an adapter: it may raise anything
            raise ChatFormatError(f"messages: the chat template refuses them: {error}") from error
        return str(text)

    def encode(self, messages: Sequence[Mapping[str, str]], tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Token ids of the rendered prompt. Raises ChatFormatError."""
        text = self.render(messages, tokenizer)
        return list(tokenizer(text, add_special_tokens=self.add_special_tokens)["input_ids"])


def default_chat_format(tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
    """The base model's own chat template, or the Human/Assistant recipe where it has none."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if template:
        return ChatFormat(template=template, add_special_tokens=False)
    return ChatFormat(template=HUMAN_ASSISTANT_TEMPLATE, add_special_tokens=True)
