"""TokenView: what the model sees of a text or a conversation, and token ids as text. Knows no HTTP and no engine."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from adapters.base_model import BaseModel
from adapters.errors import ChatFormatError
from server.text.errors import FieldRefused
from server.text.model_names import ModelResolver
from server.text.prompts import PromptMaker
from server.text.request import ChatPrompt, TextPrompt


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A conversation in a model's chat format: its text, and the ids of it, which virtual tokens stand before."""

    text: str
    token_ids: list[int]
    num_virtual_tokens: int


class TokenView:
    """Reads the disk and may take long: to be called in a worker thread; any number of calls at once.

    `model` is a name as requests have it. Each method raises AdapterNotFound, AdapterIncompatible, StoreFailure.
    """

    def __init__(self, base: BaseModel, resolver: ModelResolver, prompts: PromptMaker) -> None:
        self._backend = base.tokenizer.backend_tokenizer
        self.eos_token: str | None = base.tokenizer.eos_token
        self._resolver = resolver
        self._prompts = prompts

    def tokenize(self, model: str, text: str, *, add_special_tokens: bool) -> list[int]:
        """The ids of a text as it stands. Raises PromptTooLong."""
        chat_format = self._prompts.format_of(self._resolver.load(model))
        return self._prompts.encode(TextPrompt(text, add_special_tokens), chat_format).token_ids

    def render(
        self, model: str, prompt: ChatPrompt, *, asker: str | None = None, add_special_tokens: bool | None = None
    ) -> RenderedPrompt:
        """A conversation as the model sees it; the tokenizer's own tokens as the chat format has it, unless told.

        `asker` is as in a CompletionRequest.

        Raises ChatFormatError, FieldRefused, PromptTooLong.
        """
        adapter = self._resolver.load(model, asker=asker)
        chat_format = self._prompts.format_of(adapter)
        text = self._prompts.render(prompt, chat_format)
        adds = chat_format.add_special_tokens if add_special_tokens is None else add_special_tokens
        token_ids = self._prompts.encode(TextPrompt(text, adds), chat_format).token_ids
        if not token_ids:
            raise ChatFormatError("messages: the chat template makes an empty prompt of them")
        return RenderedPrompt(text, token_ids, adapter.injection.num_virtual_tokens if adapter else 0)

    def detokenize(self, model: str, token_ids: Sequence[int]) -> str:
        """The text of ids, special tokens written out. Raises FieldRefused for what is no token."""
        self._resolver.load(model)
        for token_id in token_ids:
            if self._backend.id_to_token(token_id) is None:
                raise FieldRefused("tokens", f"{token_id} is not a token of this model")
        text: str = self._backend.decode(list(token_ids), skip_special_tokens=False)
        return text

    def names(self, token_ids: Iterable[int]) -> list[str]:
        """The names in the vocabulary of ids that the tokenizer made."""
        return [self._backend.id_to_token(token_id) for token_id in token_ids]
