"""ModelFormat: what a model sees of a conversation, and what ends its answers. Knows no labels and no rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from adapters.chat_format import ChatFormat, RenderOptions
from adapters.tool_format import ToolFormat
from training.conversation import Message
from training.tool_rows import functions_of, turns_of


@dataclass(frozen=True, slots=True)
class FormattedPrompt:
    """A conversation up to where the assistant begins to speak, as text and as token ids."""

    text: str
    token_ids: list[int]


class ModelFormat(Protocol):
    """A chat format with its tokenizer, wherever these are."""

    @property
    def eos_token(self) -> str:
        """What stands behind an answer, as text."""
        ...

    def prompt(self, messages: Sequence[Message], tools: Sequence[Message]) -> FormattedPrompt:
        """Raises ChatFormatError where the template refuses the messages."""
        ...

    def whole(self, messages: Sequence[Message], tools: Sequence[Message]) -> str:
        """The text of all messages, with nothing opened behind them. Raises ChatFormatError."""
        ...

    def tokens(self, text: str) -> list[int]:
        """The text's token ids as it stands, special tokens among them."""
        ...


@dataclass(frozen=True, slots=True)
class LocalFormat:
    """A chat format and a tokenizer of this machine. Tools enter the prompt as the server gives them."""

    tokenizer: PreTrainedTokenizerBase
    chat_format: ChatFormat

    @property
    def eos_token(self) -> str:
        return str(self.tokenizer.eos_token)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Message]) -> FormattedPrompt:
        text = self._rendered(messages, tools, opens_turn=True)
        add_special_tokens = self.chat_format.add_special_tokens
        return FormattedPrompt(text, list(self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]))

    def whole(self, messages: Sequence[Message], tools: Sequence[Message]) -> str:
        return self._rendered(messages, tools, opens_turn=False)

    def tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _rendered(self, messages: Sequence[Message], tools: Sequence[Message], *, opens_turn: bool) -> str:
        given = ToolFormat(self.chat_format.template).prepare(
            turns_of(messages), functions_of(tools), system_prompt=self.chat_format.system_prompt
        )
        options = RenderOptions(tools=tuple(given.arguments.get("tools", ())), add_generation_prompt=opens_turn)
        return self.chat_format.render(given.messages, self.tokenizer, options)
