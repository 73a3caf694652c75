"""Completions: messages in, text out, through chat format, engine, detokeniser and stop strings. Knows no HTTP."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from adapters.base_model import BaseModel
from adapters.chat_format import ChatFormat, SamplingDefaults, default_chat_format
from adapters.errors import ChatFormatError
from adapters.weights import SoftPrompt
from server.engine.async_engine import AsyncEngine
from server.engine.errors import PromptTooLong
from server.engine.outputs import FinishReason
from server.engine.sampling_params import SamplingParams
from server.text.detokenizer import IncrementalDetokenizer
from server.text.model_names import ModelResolver
from server.text.stop import StopMatcher


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """One chat request. None means: what the adapter asks for, and else the server's default."""

    model: str
    messages: tuple[Mapping[str, str], ...]
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    """0 keeps all tokens."""
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    """Beside these, the stop strings of the adapter's chat format end the answer."""
    ignore_eos: bool = False
    tenant_salt: bytes = b""
    """The cached prompts of one tenant are not found by another; adapters' virtual tokens are everybody's."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one finished request; an adapter's virtual tokens are in none of the counts."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Finish:
    """How an answer ended."""

    reason: FinishReason
    usage: Usage


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text made since the last delta; only the last delta of an answer has a finish, and its text may be empty."""

    text: str
    finish: Finish | None


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer."""

    text: str
    finish: Finish


@dataclass(frozen=True, slots=True)
class _Prompt:
    token_ids: list[int]
    params: SamplingParams
    soft_prompt: SoftPrompt | None
    stop: tuple[str, ...]


class _AnswerText:
    """Tokens to text that is safe to show, token by token, so that the result does not depend on how deltas are cut."""

    def __init__(self, detokenizer: IncrementalDetokenizer, matcher: StopMatcher) -> None:
        self._detokenizer = detokenizer
        self._matcher = matcher
        self.num_tokens = 0

    @property
    def stopped(self) -> bool:
        return self._matcher.stopped

    def decode(self, token_ids: Iterable[int]) -> str:
        pieces = []
        for token_id in token_ids:
            self.num_tokens += 1
            pieces.append(self._matcher.decode(self._detokenizer.decode((token_id,))))
            if self.stopped:
                break
        return "".join(pieces)

    def flush(self) -> str:
        return self._matcher.decode(self._detokenizer.flush()) + self._matcher.flush()


class Completions:
    """Answers chat requests, streamed or whole, on one base model and its adapters."""

    def __init__(
        self, engine: AsyncEngine, resolver: ModelResolver, base: BaseModel, *, stop_token_ids: frozenset[int]
    ) -> None:
        self._engine = engine
        self._resolver = resolver
        self._tokenizer = base.tokenizer
        self._backend = base.tokenizer.backend_tokenizer
        self._base_format = default_chat_format(base.tokenizer)
        self._stop_token_ids = stop_token_ids
        self._max_prompt_chars = engine.max_model_len * max(map(len, base.tokenizer.get_vocab()))
        # Encoding changes the tokenizer while these are set, and requests are encoded in several threads at once.
        self._backend.no_truncation()
        self._backend.no_padding()

    async def stream(self, request: CompletionRequest) -> AsyncGenerator[TextDelta]:
        """The answer while it is made; closing the generator aborts the sequence within a step.

        Raises, before the first delta, AdapterNotFound, AdapterIncompatible, StoreFailure, ChatFormatError,
        PromptTooLong, EngineOverloaded, EngineStopping; at any time SequenceFailed, EngineDead.
        """
        with self._engine.place():
            prompt = await asyncio.to_thread(self._prepare, request)
            async with aclosing(self._answer(prompt, request.tenant_salt)) as deltas:
                async for delta in deltas:
                    yield delta

    async def _answer(self, prompt: _Prompt, tenant_salt: bytes) -> AsyncGenerator[TextDelta]:
        answer = _AnswerText(IncrementalDetokenizer(self._backend), StopMatcher(prompt.stop))
        deltas = self._engine.generate(
            prompt.token_ids, prompt.params, soft_prompt=prompt.soft_prompt, tenant_salt=tenant_salt
        )
        async with aclosing(deltas):
            async for delta in deltas:
                text = answer.decode(delta.token_ids)
                if delta.finish_reason is not None and not answer.stopped:
                    text += answer.flush()
                reason = FinishReason.STOP if answer.stopped else delta.finish_reason
                if reason is not None:
                    usage = Usage(len(prompt.token_ids), answer.num_tokens, delta.num_cached_tokens)
                    yield TextDelta(text, Finish(reason, usage))
                    return
                if text:
                    yield TextDelta(text, None)

    async def complete(self, request: CompletionRequest) -> Completion:
        """The whole answer: a fold over `stream`, which says what is raised. Cancelling it aborts the sequence."""
        pieces = []
        async with aclosing(self.stream(request)) as deltas:
            async for delta in deltas:
                pieces.append(delta.text)
                if delta.finish is not None:
                    return Completion("".join(pieces), delta.finish)
        raise AssertionError("a stream ends with a finish or an error")

    def _prepare(self, request: CompletionRequest) -> _Prompt:
        """Everything that reads the disk or takes long before the engine; runs in a worker thread."""
        adapter = self._resolver.load(request.model)
        self._refuse_hopeless(request.messages)
        chat_format = (adapter.manifest.chat_format if adapter else None) or self._base_format
        token_ids = chat_format.encode(request.messages, self._tokenizer)
        if not token_ids:
            raise ChatFormatError("messages: the chat template makes an empty prompt of them")
        soft_prompt = adapter.soft_prompt if adapter else None
        num_virtual_tokens = soft_prompt.num_virtual_tokens if soft_prompt else 0
        max_tokens = self._max_tokens(request, chat_format.sampling, len(token_ids), num_virtual_tokens)
        params = self._sampling_params(request, chat_format.sampling, max_tokens)
        return _Prompt(token_ids, params, soft_prompt, self._stop_strings(request, chat_format))

    def _refuse_hopeless(self, messages: Iterable[Mapping[str, str]]) -> None:
        """Refuse text that is too long even in the longest tokens, before seconds are spent on encoding it."""
        num_chars = sum(len(message["content"]) for message in messages)
        if num_chars > self._max_prompt_chars:
            raise PromptTooLong(
                f"this model's context is {self._engine.max_model_len} tokens: {num_chars} characters do not fit"
            )

    def _max_tokens(
        self, request: CompletionRequest, defaults: SamplingDefaults, num_prompt_tokens: int, num_virtual_tokens: int
    ) -> int:
        """The request's own max_tokens if it fits; else what the adapter asks for, up to all that is left."""
        limit = self._engine.max_model_len
        room = limit - num_virtual_tokens - num_prompt_tokens
        wanted = request.max_tokens or 1
        if room < wanted:
            virtual = f", the adapter's {num_virtual_tokens} virtual tokens" if num_virtual_tokens else ""
            raise PromptTooLong(
                f"this model's context is {limit} tokens: the messages' {num_prompt_tokens} tokens{virtual} and "
                f"{wanted} for the answer are {wanted - room} too many"
            )
        if request.max_tokens is not None:
            return request.max_tokens
        return room if defaults.max_tokens is None else min(defaults.max_tokens, room)

    def _sampling_params(
        self, request: CompletionRequest, defaults: SamplingDefaults, max_tokens: int
    ) -> SamplingParams:
        return SamplingParams(
            max_tokens=max_tokens,
            temperature=_first(request.temperature, defaults.temperature, 1.0),
            top_p=_first(request.top_p, defaults.top_p, 1.0),
            top_k=(defaults.top_k if request.top_k is None else request.top_k) or None,
            seed=secrets.randbits(63) if request.seed is None else request.seed,
            stop_token_ids=frozenset() if request.ignore_eos else self._stop_token_ids,
        )

    def _stop_strings(self, request: CompletionRequest, chat_format: ChatFormat) -> tuple[str, ...]:
        return (*request.stop, *chat_format.stop)


def _first(*choices: float | None) -> float:
    return next(choice for choice in choices if choice is not None)
