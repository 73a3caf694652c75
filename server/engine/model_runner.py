"""Runs one batch through the model: inputs, forward, sampling. The only file that calls the model; knows no queues."""

from collections.abc import Mapping
from itertools import chain

import torch
from transformers import PreTrainedModel

from adapters.weights import SoftPrompt
from server.engine.attention import PagedAttention, StepLayout
from server.engine.batch import Batch, ScheduledSequence, StepResult
from server.engine.errors import SequenceFailed
from server.engine.kv_cache import KVCache
from server.engine.sampler import SamplingRow, sample


class ModelRunner:
    """Holds the model, whose attention layers call `attention`, and the cache that it reads and writes."""

    def __init__(self, model: PreTrainedModel, cache: KVCache, attention: PagedAttention) -> None:
        self._model = model
        self._embed = model.get_input_embeddings()
        self._cache = cache
        self._attention = attention
        self._takes_positions = model.config.model_type != "bloom"  # ALiBi: BLOOM has no position ids

    @property
    def device(self) -> torch.device:
        return self._model.device

    @property
    def dtype(self) -> torch.dtype:
        return self._model.dtype

    @property
    def model_type(self) -> str:
        return str(self._model.config.model_type)

    def run(self, batch: Batch, soft_prompts: Mapping[int, SoftPrompt]) -> StepResult:
        """Compute a batch, and choose a token for each sequence that reaches its end.

        `soft_prompts` holds, by request id, what the ids below zero stand for. Raises whatever the model raises. To run
        the same sequences again is always safe: they write the same KV to the same slots.
        """
        with torch.inference_mode():
            logits = self.logits(batch, soft_prompts)
            return _sampled([item for item in batch.items if item.samples], logits)

    def logits(self, batch: Batch, soft_prompts: Mapping[int, SoftPrompt]) -> torch.Tensor:
        """Logits `[R, vocab_size]` at the last position of each item that samples."""
        self._cache.copy(batch.copies)
        layout = StepLayout.of(batch, block_size=self._cache.block_size, device=self.device)
        positions = torch.tensor(list(chain.from_iterable(range(item.start, item.stop) for item in batch.items)))
        arguments = {"position_ids": positions[None].to(self.device)} if self._takes_positions else {}
        with self._attention.step(layout):
            output = self._model(
                inputs_embeds=self._input_embeddings(batch, soft_prompts),
                use_cache=False,
                logits_to_keep=_last_rows(batch).to(self.device),
                **arguments,
            )
        logits: torch.Tensor = output.logits[0]
        return logits

    def _input_embeddings(self, batch: Batch, soft_prompts: Mapping[int, SoftPrompt]) -> torch.Tensor:
        """`[1, T, hidden_size]`: the model's own embeddings, and row i - 1 of the soft prompt for id -i."""
        token_ids = list(chain.from_iterable(item.sequence.token_ids[item.start : item.stop] for item in batch.items))
        embeddings: torch.Tensor = self._embed(torch.tensor(token_ids).clamp(min=0).to(self.device))  # [T, hidden_size]
        row = 0
        for item in batch.items:
            num_virtual = min(item.stop, item.sequence.num_virtual_tokens) - item.start
            if num_virtual > 0:
                rows = soft_prompts[item.sequence.request_id].embeddings[item.start : item.start + num_virtual]
                embeddings[row : row + num_virtual] = rows.to(embeddings)
            row += item.num_tokens
        return embeddings[None]


def _last_rows(batch: Batch) -> torch.Tensor:
    """Packed rows whose logits are needed."""
    rows, row = [], 0
    for item in batch.items:
        row += item.num_tokens
        if item.samples:
            rows.append(row - 1)
    return torch.tensor(rows, dtype=torch.long)


def _sampled(items: list[ScheduledSequence], logits: torch.Tensor) -> StepResult:
    if not items:
        return StepResult({}, {})
    rows = [SamplingRow(params, item.sequence.num_output_tokens) for item in items if (params := item.sequence.params)]
    tokens = sample(logits, rows)
    finite = logits.amax(dim=-1).isfinite().tolist()
    ids = [item.sequence.request_id for item in items]
    return StepResult(
        tokens={request_id: token for request_id, token, good in zip(ids, tokens, finite, strict=True) if good},
        failures={
            request_id: SequenceFailed("the model's output is not a number for this request")
            for request_id, good in zip(ids, finite, strict=True)
            if not good
        },
    )
