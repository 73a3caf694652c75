"""PromptMaker: a request to token ids, sampling parameters and soft prompt. Knows no HTTP and no running engine."""

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from adapters.base_model import BaseModel
from adapters.chat_format import ChatFormat, SamplingDefaults, default_chat_format
from adapters.errors import AdapterInvalid, ChatFormatError, ChatTemplateBusy
from adapters.injections import Injection
from adapters.manifest import MANIFEST_FILE
from adapters.naming import AdapterReference
from adapters.rendering import Renderer, render_here
from adapters.weights import Adapter
from server.engine.errors import PromptTooLong
from server.engine.sampling_params import SamplingParams
from server.text.echo import PromptText, PromptTexts
from server.text.errors import FieldRefused
from server.text.messages import rendered
from server.text.model_names import ModelResolver
from server.text.reasoning import Thoughts, has_think_tags, thoughts_behind
from server.text.request import ChatPrompt, CompletionRequest, Prompt, Sampling, TextPrompt

MOST_SCORED_TOKENS = 32_768
"""Of all prompts of a request together, where each token is told with its probability; one prompt may be longer."""


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """Token ids, and the text that they are of; a prompt that was given as ids has none."""

    token_ids: list[int]
    text: str


@dataclass(frozen=True, slots=True)
class ReadyPrompt:
    """What the engine is given, and what the answer's text needs.

    `fingerprint` tells base models and adapters apart, by what they hold, for OpenAI's system_fingerprint.
    """

    token_ids: list[int]
    params: SamplingParams
    injection: Injection | None
    stop: tuple[str, ...]
    fingerprint: str
    adapter: AdapterReference | None
    """The name and the digest that answer."""
    thoughts: Thoughts
    echo: PromptText | None = None
    """What stands before each answer, where that is asked for."""

    def params_of(self, index: int) -> SamplingParams:
        """Those of one of several choices: each has a seed of its own, the first one the request's.

        How likely the prompt is, is asked once.
        """
        if index == 0:
            return self.params
        message = f"{self.params.seed} {index}".encode()
        seed = int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "little") >> 1
        return replace(self.params, seed=seed, num_prompt_logprobs=None)


class PromptMaker:
    """Reads the disk and takes long before the engine: to be called in a worker thread; any number of them at once."""

    def __init__(
        self,
        base: BaseModel,
        resolver: ModelResolver,
        *,
        max_model_len: int,
        vocab_size: int,
        stop_token_ids: frozenset[int],
        renderer: Renderer = render_here,
    ) -> None:
        self._resolver = resolver
        self._renderer = renderer
        self._tokenizer = base.tokenizer
        self._texts = PromptTexts(base.tokenizer.backend_tokenizer)
        self._fingerprint = base.identity.fingerprint
        self._base_format = default_chat_format(base.tokenizer)
        self._max_model_len = max_model_len
        self._vocab_size = vocab_size
        self._stop_token_ids = stop_token_ids
        self._vocabulary = frozenset(base.tokenizer.get_vocab())
        self._max_prompt_chars = max_model_len * max(map(len, self._vocabulary))
        # Encoding changes the tokenizer while these are set, and requests are encoded in several threads at once.
        base.tokenizer.backend_tokenizer.no_truncation()
        base.tokenizer.backend_tokenizer.no_padding()

    def make(self, request: CompletionRequest) -> ReadyPrompt:
        """Everything before the engine.

        Raises AdapterNotFound, AdapterIncompatible, StoreFailure, ChatFormatError, FieldRefused, PromptTooLong.
        """
        return self._made(request, self._resolver.load(request.model, asker=request.asker))

    def make_all(self, requests: Sequence[CompletionRequest]) -> list[ReadyPrompt]:
        """As `make`, of requests that differ in their prompts alone: one version answers all of them."""
        adapter = self._resolver.load(requests[0].model, asker=requests[0].asker)
        prompts = [self._made(request, adapter) for request in requests]
        self._refuse_too_many_echoed(prompts)
        return prompts

    def _made(self, request: CompletionRequest, adapter: Adapter | None) -> ReadyPrompt:
        chat_format = self.format_of(adapter)
        injection = adapter.injection if adapter else None
        encoded = self.encode(request.prompt, chat_format)
        request.notes.note_prompt(encoded.text)
        max_tokens = self._max_tokens(request.sampling, chat_format.sampling, len(encoded.token_ids), injection)
        return ReadyPrompt(
            encoded.token_ids,
            self._sampling_params(request.sampling, chat_format.sampling, max_tokens),
            injection,
            self._stop_strings(request, chat_format),
            self._fingerprint_with(injection),
            reference_to(adapter),
            self._thoughts(request.prompt, chat_format, encoded.text),
            echo=self._echo(request, encoded.token_ids) if request.echo else None,
        )

    def _echo(self, request: CompletionRequest, token_ids: list[int]) -> PromptText:
        assert not isinstance(request.prompt, ChatPrompt), "a conversation is not echoed"
        has_offsets = request.sampling.num_prompt_logprobs is not None
        return self._texts.of(request.prompt, token_ids, with_offsets=has_offsets)

    def _refuse_too_many_echoed(self, prompts: Sequence[ReadyPrompt]) -> None:
        """A token with its probabilities takes a kilobyte or two, and all are there at once."""
        num_tokens = sum(len(prompt.echo.offsets) for prompt in prompts if prompt.echo is not None)
        most = max(MOST_SCORED_TOKENS, self._max_model_len)
        if num_tokens > most:
            raise FieldRefused("prompt", f"has {num_tokens} tokens in all; with echo and logprobs {most} go together")

    def _thoughts(self, prompt: Prompt, chat_format: ChatFormat, text: str) -> Thoughts:
        """Whether what comes behind the prompt's text begins with thoughts; an answer that goes on begins with none."""
        if not isinstance(prompt, ChatPrompt) or not has_think_tags(chat_format.template, self._vocabulary):
            return Thoughts.NONE
        thoughts = thoughts_behind(text)
        is_begun = prompt.options.continue_final_message and thoughts is Thoughts.POSSIBLE
        return Thoughts.NONE if is_begun else thoughts

    def format_of(self, adapter: Adapter | None) -> ChatFormat:
        """The adapter's own chat format, or the base model's."""
        return (adapter.manifest.chat_format if adapter else None) or self._base_format

    def render(self, prompt: ChatPrompt, chat_format: ChatFormat) -> str:
        """What the chat format makes of a conversation. Raises ChatFormatError, FieldRefused, PromptTooLong."""
        self._refuse_hopeless(turn.content for turn in prompt.turns)
        return rendered(prompt, chat_format, self._tokenizer, renderer=self._renderer)

    def try_out(self, chat_format: ChatFormat) -> None:
        """Refuse the chat format of an adapter that cannot render what a user says, or takes too long for it.

        Raises AdapterInvalid, ChatTemplateBusy.
        """
        try:
            chat_format.render([{"role": "user", "content": "Hello!"}], self._tokenizer, renderer=self._renderer)
        except ChatTemplateBusy:
            raise
        except ChatFormatError as error:
            problem = str(error).removeprefix("messages: ")
            raise AdapterInvalid(MANIFEST_FILE, f"'chat_format.template': {problem}") from error

    def encode(self, prompt: Prompt, chat_format: ChatFormat) -> EncodedPrompt:
        """The prompt as the model sees it, without virtual tokens.

        Raises ChatFormatError, FieldRefused, PromptTooLong.
        """
        if isinstance(prompt, ChatPrompt):
            text = self.render(prompt, chat_format)
            token_ids = self._encoded(text, add_special_tokens=chat_format.add_special_tokens)
            if not token_ids:
                raise ChatFormatError("messages: the chat template makes an empty prompt of them")
            return EncodedPrompt(token_ids, text)
        if isinstance(prompt, TextPrompt):
            self._refuse_hopeless([prompt.text])
            return EncodedPrompt(self._encoded(prompt.text, add_special_tokens=prompt.add_special_tokens), prompt.text)
        return EncodedPrompt(list(prompt.token_ids), "")

    def _encoded(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])

    def _refuse_hopeless(self, texts: Iterable[str]) -> None:
        """Refuse text that is too long even in the longest tokens, before seconds are spent on encoding it."""
        num_chars = sum(map(len, texts))
        if num_chars > self._max_prompt_chars:
            raise PromptTooLong(
                f"this model's context is {self._max_model_len} tokens: {num_chars} characters do not fit"
            )

    def _max_tokens(
        self, sampling: Sampling, defaults: SamplingDefaults, num_prompt_tokens: int, injection: Injection | None
    ) -> int:
        """The request's own max_tokens if it fits; else what the adapter asks for, up to all that is left."""
        num_virtual_tokens = injection.num_virtual_tokens if injection else 0
        limit = self._max_model_len
        room = limit - num_virtual_tokens - num_prompt_tokens
        wanted = 1 if sampling.max_tokens is None else sampling.max_tokens
        if room < wanted:
            virtual = f", the adapter's {num_virtual_tokens} virtual tokens" if num_virtual_tokens else ""
            raise PromptTooLong(
                f"this model's context is {limit} tokens: the prompt's {num_prompt_tokens} tokens{virtual} and "
                f"{wanted} for the answer are {wanted - room} too many"
            )
        if sampling.max_tokens is not None:
            return sampling.max_tokens
        return room if defaults.max_tokens is None else min(defaults.max_tokens, room)

    def _sampling_params(self, sampling: Sampling, defaults: SamplingDefaults, max_tokens: int) -> SamplingParams:
        return SamplingParams(
            max_tokens=max_tokens,
            min_tokens=self._min_tokens(sampling, max_tokens),
            temperature=_first(sampling.temperature, defaults.temperature, 1.0),
            top_p=_first(sampling.top_p, defaults.top_p, 1.0),
            top_k=(defaults.top_k if sampling.top_k is None else sampling.top_k) or None,
            min_p=sampling.min_p,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            repetition_penalty=sampling.repetition_penalty,
            logit_bias=self._logit_bias(sampling),
            num_logprobs=sampling.num_logprobs,
            num_prompt_logprobs=sampling.num_prompt_logprobs,
            seed=random.getrandbits(63) if sampling.seed is None else sampling.seed,
            stop_token_ids=frozenset() if sampling.ignore_eos else self._stop_token_ids,
        )

    def _min_tokens(self, sampling: Sampling, max_tokens: int) -> int:
        if sampling.min_tokens > max_tokens:
            raise FieldRefused("min_tokens", f"is more than the {max_tokens} tokens that there may be")
        return sampling.min_tokens

    def _logit_bias(self, sampling: Sampling) -> tuple[tuple[int, float], ...]:
        unknown = [token_id for token_id in sampling.logit_bias if token_id >= self._vocab_size]
        if unknown:
            raise FieldRefused("logit_bias", f"{unknown[0]} is no token id: they end at {self._vocab_size - 1}")
        return tuple(sorted(sampling.logit_bias.items()))

    def _stop_strings(self, request: CompletionRequest, chat_format: ChatFormat) -> tuple[str, ...]:
        of_format = chat_format.stop if isinstance(request.prompt, ChatPrompt) else ()
        return (*request.sampling.stop, *of_format)

    def _fingerprint_with(self, injection: Injection | None) -> str:
        names = f"{self._fingerprint} {injection.digest if injection else ''}"
        return f"fp_{hashlib.sha256(names.encode()).hexdigest()[:16]}"


def reference_to(adapter: Adapter | None) -> AdapterReference | None:
    """An adapter by its own name and whole digest."""
    return None if adapter is None else AdapterReference(adapter.manifest.name, adapter.manifest.digest)


def _first(*choices: float | None) -> float:
    return next(choice for choice in choices if choice is not None)
