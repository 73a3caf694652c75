"""Completions: a prompt in, text out, through chat format, engine, detokeniser and stop strings. Knows no HTTP."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from adapters.base_model import BaseModel
from server.engine.async_engine import AsyncEngine
from server.engine.outputs import FinishReason
from server.text.answer import AnswerText
from server.text.deltas import Completion, TextDelta, Usage, folded
from server.text.detokenizer import IncrementalDetokenizer
from server.text.merging import merged
from server.text.prompts import PromptMaker, ReadyPrompt
from server.text.request import CompletionRequest
from server.text.stop import StopMatcher
from server.text.token_bytes import TokenBytes


class Completions:
    """Answers requests, streamed or whole, on one base model and its adapters."""

    def __init__(self, engine: AsyncEngine, prompts: PromptMaker, base: BaseModel) -> None:
        self._engine = engine
        self._prompts = prompts
        self._backend = base.tokenizer.backend_tokenizer
        self._token_bytes = TokenBytes(self._backend)

    async def stream(self, request: CompletionRequest) -> AsyncGenerator[TextDelta]:
        """The answers while they are made; closing the generator aborts their sequences within a step.

        Raises, before the first delta, AdapterNotFound, AdapterIncompatible, StoreFailure, ChatFormatError,
        PromptInvalid, PromptTooLong, EngineOverloaded, EngineStopping; at any time SequenceFailed, EngineDead.
        """
        with self._engine.place(request.n):
            prompt = await asyncio.to_thread(self._prompts.make, request)
            async with aclosing(self._choices(prompt, request)) as deltas:
                async for delta in deltas:
                    yield delta

    async def complete(self, request: CompletionRequest) -> Completion:
        """The whole answer: a fold over `stream`, which says what is raised. Cancelling it aborts the sequences."""
        async with aclosing(self.stream(request)) as deltas:
            return folded([delta async for delta in deltas], request.n)

    async def _choices(self, prompt: ReadyPrompt, request: CompletionRequest) -> AsyncGenerator[TextDelta]:
        """All choices; the others begin after the first one's first delta, and find its prompt in the prefix cache."""
        first = self._choice(prompt, request, 0)
        if request.n == 1:
            async with aclosing(first):
                async for delta in first:
                    yield delta
            return
        begun = asyncio.Event()
        others = [_after(begun, self._choice(prompt, request, index)) for index in range(1, request.n)]
        num_open, num_made, num_cached = request.n, 0, 0
        async with aclosing(merged([_telling(begun, first), *others])) as deltas:
            async for delta in deltas:
                if delta.usage is None:
                    yield delta
                    continue
                num_open -= 1
                num_made += delta.usage.completion_tokens
                num_cached = delta.usage.cached_tokens if delta.index == 0 else num_cached
                total = None if num_open else Usage(len(prompt.token_ids), num_made, num_cached)
                yield replace(delta, usage=total)

    async def _choice(self, prompt: ReadyPrompt, request: CompletionRequest, index: int) -> AsyncGenerator[TextDelta]:
        """One choice; its last delta has the usage of it alone."""
        answer = AnswerText(IncrementalDetokenizer(self._backend), StopMatcher(prompt.stop), self._token_bytes)
        deltas = self._engine.generate(
            prompt.token_ids,
            prompt.params_of(index),
            soft_prompt=prompt.soft_prompt,
            tenant_salt=request.tenant_salt,
        )
        async with aclosing(deltas):
            async for delta in deltas:
                piece = answer.decode(delta)
                reason = FinishReason.STOP if answer.stopped else delta.finish_reason
                usage = None
                if reason is not None:
                    usage = Usage(len(prompt.token_ids), answer.num_tokens, delta.num_cached_tokens)
                if piece.text or piece.tokens or reason is not None:
                    yield TextDelta(
                        index,
                        piece.text,
                        prompt.fingerprint,
                        tokens=piece.tokens,
                        finish_reason=reason,
                        usage=usage,
                    )
                if reason is not None:
                    return


async def _telling(begun: asyncio.Event, deltas: AsyncGenerator[TextDelta]) -> AsyncGenerator[TextDelta]:
    """The same stream; the event is set by its first item."""
    async with aclosing(deltas):
        async for delta in deltas:
            begun.set()
            yield delta


async def _after(begun: asyncio.Event, deltas: AsyncGenerator[TextDelta]) -> AsyncGenerator[TextDelta]:
    async with aclosing(deltas):
        await begun.wait()
        async for delta in deltas:
            yield delta
