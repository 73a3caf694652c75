"""Completions: a prompt in, text out, through chat format, engine, detokeniser and stop strings. Knows no HTTP."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from tokenizers import Tokenizer

from server.engine.async_engine import AsyncEngine
from server.engine.constraint import TokenConstraint
from server.engine.outputs import FinishReason, TokenDelta
from server.text.adapter_use import AdapterUse, Tally
from server.text.answer import AnswerText, Piece
from server.text.choice_clock import ChoiceClock
from server.text.deltas import Completion, TextDelta, Usage, folded
from server.text.detokenizer import IncrementalDetokenizer
from server.text.echo import echo_of
from server.text.merging import merged
from server.text.prompts import PromptMaker, ReadyPrompt
from server.text.reader import AnswerReader, Reading
from server.text.request import Charge, CompletionRequest
from server.text.serving_stats import ServingStats
from server.text.stop import StopMatcher
from server.text.structure.compiler import GrammarCompiler
from server.text.together import together
from server.text.token_bytes import TokenBytes


@dataclass(frozen=True, slots=True)
class _Job:
    """A request with what was made of it; a constraint for each choice."""

    request: CompletionRequest
    prompt: ReadyPrompt
    constraints: Sequence[TokenConstraint | None]
    tally: Tally


class Completions:
    """Answers requests, streamed or whole, on one base model and its adapters."""

    def __init__(
        self,
        engine: AsyncEngine,
        prompts: PromptMaker,
        grammars: GrammarCompiler,
        tokenizer: Tokenizer,
        charge: Charge,
        use: AdapterUse,
        stats: ServingStats,
    ) -> None:
        self._engine = engine
        self._use = use
        self._stats = stats
        self._charge = charge
        self._prompts = prompts
        self._grammars = grammars
        self._tokenizer = tokenizer
        self._token_bytes = TokenBytes(tokenizer)

    async def stream(self, request: CompletionRequest) -> AsyncGenerator[TextDelta]:
        """The answers while they are made; closing the generator aborts their sequences within a step.

        Raises, before the first delta, AdapterNotFound, AdapterIncompatible, StoreFailure, ChatFormatError,
        FieldRefused, StructureError, PromptInvalid, PromptTooLong, EngineOverloaded, EngineStopping; at any time
        SequenceFailed, ReaderStalled, EngineDead.
        """
        request.notes.model = request.model
        with self._engine.place(request.n):
            prompt = await asyncio.to_thread(self._prompts.make, request)
            request.notes.adapter = prompt.adapter
            with self._use.request(prompt.adapter) as tally:
                job = await self._job(request, prompt, tally)
                with self._stats.request(request.notes) as served:
                    async with aclosing(self._choices(job)) as deltas:
                        async for delta in deltas:
                            served.is_whole = delta.usage is not None
                            yield delta

    async def stream_many(self, requests: Sequence[CompletionRequest]) -> AsyncGenerator[TextDelta]:
        """As `stream`, of several requests that differ in their prompts; nothing begins before all of them are good.

        Choices are counted through, and there is one usage, of all.
        """
        n = requests[0].n
        requests[0].notes.model = requests[0].model
        with self._engine.place(n * len(requests)):
            prompts = await asyncio.to_thread(self._prompts.make_all, requests)
            requests[0].notes.adapter = prompts[0].adapter
            with self._use.request(prompts[0].adapter) as tally:
                jobs = [
                    await self._job(request, prompt, tally) for request, prompt in zip(requests, prompts, strict=True)
                ]
                streams = [self._choices(job) for job in jobs]
                with self._stats.request(requests[0].notes) as served:
                    async with aclosing(together(streams, n)) as deltas:
                        async for delta in deltas:
                            served.is_whole = delta.usage is not None
                            yield delta

    async def complete(self, request: CompletionRequest) -> Completion:
        """The whole answer: a fold over `stream`, which says what is raised. Cancelling it aborts the sequences."""
        async with aclosing(self.stream(request)) as deltas:
            return folded([delta async for delta in deltas], request.n)

    async def complete_many(self, requests: Sequence[CompletionRequest]) -> Completion:
        """The whole of `stream_many`."""
        async with aclosing(self.stream_many(requests)) as deltas:
            return folded([delta async for delta in deltas], requests[0].n * len(requests))

    async def _job(self, request: CompletionRequest, prompt: ReadyPrompt, tally: Tally) -> _Job:
        if request.structure is None:
            return _Job(request, prompt, [None] * request.n, tally)
        constraints = [await self._grammars.compile(request.structure, prompt.thoughts) for _ in range(request.n)]
        return _Job(request, prompt, constraints, tally)

    def _choices(self, job: _Job) -> AsyncGenerator[TextDelta]:
        """All choices; one alone goes no way round."""
        return self._choice(job, 0) if job.request.n == 1 else self._several(job)

    async def _several(self, job: _Job) -> AsyncGenerator[TextDelta]:
        """The others begin after the first one's first token, and find its prompt in the prefix cache."""
        n = job.request.n
        first = self._choice(job, 0)
        begun = asyncio.Event()
        others = [_after(begun, self._choice(job, index)) for index in range(1, n)]
        num_open, num_made, num_cached = n, 0, 0
        async with aclosing(merged([_telling(begun, first), *others])) as deltas:
            async for delta in deltas:
                if delta.echo is not None:
                    for number in range(n):
                        yield replace(delta, index=number)
                    continue
                if delta.usage is None:
                    yield delta
                    continue
                num_open -= 1
                num_made += delta.usage.completion_tokens
                num_cached = delta.usage.cached_tokens if delta.index == 0 else num_cached
                total = None if num_open else Usage(len(job.prompt.token_ids), num_made, num_cached)
                yield replace(delta, usage=total)

    async def _choice(self, job: _Job, index: int) -> AsyncGenerator[TextDelta]:
        """One choice; its last delta has the usage of it alone. However it ends, its tokens are charged.

        The first choice is charged for the prompt, once that has been computed, and begins with its echo.
        """
        prompt, request = job.prompt, job.request
        answer = AnswerText(IncrementalDetokenizer(self._tokenizer), StopMatcher(prompt.stop), self._token_bytes)
        reader = AnswerReader(request.structure, prompt.thoughts)
        clock = ChoiceClock(request.notes, self._stats)
        deltas = self._engine.generate(
            prompt.token_ids,
            prompt.params_of(index),
            injection=prompt.injection,
            tenant_salt=request.tenant_salt,
            constraint=job.constraints[index],
        )
        num_prompt_tokens = 0
        echoes = index == 0 and prompt.echo is not None
        try:
            with clock.running():
                async with aclosing(deltas):
                    async for delta in deltas:
                        if index == 0 and not num_prompt_tokens:
                            num_prompt_tokens = len(prompt.token_ids)
                            clock.note_prompt(num_prompt_tokens, delta.num_cached_tokens)
                        if echoes:
                            echoes = False
                            async with aclosing(self._echo(prompt, delta)) as parts:
                                async for part in parts:
                                    yield part
                        num_before = answer.num_tokens
                        piece = answer.decode(delta)
                        clock.tick(delta, answer.num_tokens - num_before)
                        reason = FinishReason.STOP if answer.stopped else delta.finish_reason
                        made = _delta(index, prompt, reader.read(piece.text), piece)
                        if made is not None:
                            yield made
                        if reason is not None:
                            clock.end(reason)
                            usage = Usage(len(prompt.token_ids), answer.num_tokens, delta.num_cached_tokens)
                            yield _last_delta(index, prompt, reader.end(), reason, usage)
                            return
        finally:
            self._charge(request.tenant_salt, num_prompt_tokens + answer.num_tokens)
            job.tally.add(prompt_tokens=num_prompt_tokens, generated_tokens=answer.num_tokens)

    async def _echo(self, prompt: ReadyPrompt, first: TokenDelta) -> AsyncGenerator[TextDelta]:
        """The prompt, part by part, when the engine has computed it."""
        assert prompt.echo is not None
        for part in prompt.echo.parts:
            echo = await asyncio.to_thread(echo_of, prompt.echo, part, first.prompt_logprobs, self._token_bytes)
            yield TextDelta(0, "", prompt.fingerprint, echo=echo)


def _delta(index: int, prompt: ReadyPrompt, reading: Reading, piece: Piece) -> TextDelta | None:
    if not (reading.text or reading.reasoning or reading.calls or piece.tokens):
        return None
    return TextDelta(
        index, reading.text, prompt.fingerprint, reasoning=reading.reasoning, calls=reading.calls, tokens=piece.tokens
    )


def _last_delta(index: int, prompt: ReadyPrompt, reading: Reading, reason: FinishReason, usage: Usage) -> TextDelta:
    return TextDelta(
        index,
        reading.text,
        prompt.fingerprint,
        reasoning=reading.reasoning,
        calls=reading.calls,
        finish_reason=reason,
        usage=usage,
    )


async def _telling(begun: asyncio.Event, deltas: AsyncGenerator[TextDelta]) -> AsyncGenerator[TextDelta]:
    """The same stream; the event is set by its first delta that is no echo."""
    async with aclosing(deltas):
        async for delta in deltas:
            if delta.echo is None:
                begun.set()
            yield delta


async def _after(begun: asyncio.Event, deltas: AsyncGenerator[TextDelta]) -> AsyncGenerator[TextDelta]:
    async with aclosing(deltas):
        await begun.wait()
        async for delta in deltas:
            yield delta
