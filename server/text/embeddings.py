"""Embeddings: texts in, one vector for each out. Knows no HTTP, and not how hidden states are computed."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from adapters.injections import Injection
from adapters.naming import AdapterReference
from server.engine.async_engine import AsyncEngine
from server.engine.errors import PromptTooLong
from server.text.adapter_use import AdapterUse, Tally
from server.text.errors import FieldRefused
from server.text.model_names import ModelResolver
from server.text.prompts import PromptMaker, reference_to
from server.text.request import Charge, TextPrompt, TokenPrompt
from server.text.request_notes import RequestNotes
from server.text.serving_stats import ServingStats

MAX_TOKENS = 300_000
"""Of all inputs of one request together; OpenAI's own limit."""
MAX_AT_ONCE = 32
"""Inputs of one request that are computed, or wait, at once: enough to fill a batch, and room is left for others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingsRequest:
    """Texts to embed; `dimensions` is how many of a vector's first numbers are wanted, None for all."""

    model: str
    inputs: tuple[TextPrompt | TokenPrompt, ...]
    dimensions: int | None = None
    asker: str | None = None
    """As in a CompletionRequest."""
    notes: RequestNotes = field(default_factory=RequestNotes)
    tenant_salt: bytes = b""


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors `[inputs, dimensions]`, each of length 1, and how many real tokens they were made of."""

    vectors: NDArray[np.float32]
    num_tokens: int


@dataclass(frozen=True, slots=True)
class _Ready:
    token_ids: list[list[int]]
    injection: Injection | None
    adapter: AdapterReference | None


class Embeddings:
    """Embeds with one base model and its adapters: the mean of the last hidden states, scaled to length 1."""

    def __init__(
        self,
        engine: AsyncEngine,
        prompts: PromptMaker,
        resolver: ModelResolver,
        charge: Charge,
        use: AdapterUse,
        stats: ServingStats,
        *,
        hidden_size: int,
    ) -> None:
        self._engine = engine
        self._stats = stats
        self._use = use
        self._charge = charge
        self._prompts = prompts
        self._resolver = resolver
        self._hidden_size = hidden_size

    async def embed(self, request: EmbeddingsRequest) -> Embedded:
        """All vectors, in the inputs' order. Cancelling it aborts what is still computed.

        Raises AdapterNotFound, AdapterIncompatible, StoreFailure, FieldRefused, PromptInvalid, PromptTooLong,
        EngineOverloaded, EngineStopping, SequenceFailed, EngineDead.
        """
        dimensions = self._hidden_size if request.dimensions is None else request.dimensions
        if dimensions > self._hidden_size:
            raise FieldRefused("dimensions", f"this model's embeddings have {self._hidden_size}")
        num_at_once = min(MAX_AT_ONCE, self._engine.max_num_seqs, len(request.inputs))
        request.notes.model = request.model
        with self._engine.place(num_at_once):
            ready = await asyncio.to_thread(self._prepare, request)
            request.notes.adapter = ready.adapter
            with self._use.request(ready.adapter) as tally, self._stats.request(request.notes):
                means = await self._means(ready, request, num_at_once, tally)
        return Embedded(_scaled(np.stack(means)[:, :dimensions]), sum(map(len, ready.token_ids)))

    def _prepare(self, request: EmbeddingsRequest) -> _Ready:
        adapter = self._resolver.load(request.model, asker=request.asker)
        chat_format = self._prompts.format_of(adapter)
        token_ids: list[list[int]] = []
        num_tokens = 0
        for prompt in request.inputs:
            encoded = self._prompts.encode(prompt, chat_format)
            request.notes.note_prompt(encoded.text)
            token_ids.append(encoded.token_ids)
            num_tokens += len(token_ids[-1])
            if num_tokens > MAX_TOKENS:
                raise PromptTooLong(f"the inputs of one request may have {MAX_TOKENS} tokens together")
        return _Ready(token_ids, adapter.injection if adapter else None, reference_to(adapter))

    async def _means(
        self, ready: _Ready, request: EmbeddingsRequest, num_at_once: int, tally: Tally
    ) -> list[NDArray[np.float32]]:
        """The mean hidden states of each input, so many at once; the first error ends all."""
        means: dict[int, NDArray[np.float32]] = {}
        pending = iter(enumerate(ready.token_ids))

        async def work(pending: Iterator[tuple[int, list[int]]]) -> None:
            for index, token_ids in pending:
                means[index] = await self._engine.embed(
                    token_ids, injection=ready.injection, tenant_salt=request.tenant_salt
                )

        tasks = [asyncio.create_task(work(pending)) for _ in range(num_at_once)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            num_tokens = sum(len(ready.token_ids[index]) for index in means)
            self._charge(request.tenant_salt, num_tokens)
            tally.add(prompt_tokens=num_tokens, generated_tokens=0)
            self._stats.add_prompt(num_tokens)
            request.notes.num_prompt_tokens = num_tokens
        return [means[index] for index in range(len(ready.token_ids))]


def _scaled(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row divided by its length; a row of zeros stays."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return scaled
