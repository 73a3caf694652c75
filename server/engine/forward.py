"""What computes a step: packed embeddings in, logits out. Knows no sampling, no queues and no adapters."""

from collections.abc import Sequence as Rows
from itertools import chain
from typing import Protocol

import torch
from transformers import PreTrainedModel

from server.engine.attention import PagedAttention
from server.engine.batch import Batch
from server.engine.kv_cache import KVCache
from server.engine.own_attention import takes_positions
from server.engine.step_layout import StepLayout


class Forward(Protocol):
    """One model with its KV cache; there is one step at a time."""

    @property
    def device(self) -> torch.device:
        """Where embeddings are taken and logits are given."""

    @property
    def input_dtype(self) -> torch.dtype:
        """Of the embeddings."""

    def logits(self, batch: Batch, embeddings: torch.Tensor, rows: Rows[int]) -> torch.Tensor:
        """Logits `[R, vocab_size]` at packed rows, after embeddings `[T, hidden_size]` of a batch's tokens in order.

        Copies blocks first, as the batch says, and leaves the KV of every token in the cache. Raises whatever the model
        raises. To compute the same sequences again is always safe.
        """


class StockForward:
    """A stock transformers model, whose attention layers call `attention`, which reads and writes `cache`."""

    def __init__(self, model: PreTrainedModel, cache: KVCache, attention: PagedAttention) -> None:
        self._model = model
        self._cache = cache
        self._attention = attention
        self._takes_positions = takes_positions(model)

    @property
    def device(self) -> torch.device:
        return self._model.device

    @property
    def input_dtype(self) -> torch.dtype:
        return self._model.dtype

    def logits(self, batch: Batch, embeddings: torch.Tensor, rows: Rows[int]) -> torch.Tensor:
        """See `Forward`."""
        self._cache.copy(batch.copies)
        layout = StepLayout.of(batch, block_size=self._cache.block_size, device=self.device)
        positions = torch.tensor(list(chain.from_iterable(range(item.start, item.stop) for item in batch.items)))
        arguments = {"position_ids": positions[None].to(self.device)} if self._takes_positions else {}
        with self._attention.step(layout):
            output = self._model(
                inputs_embeds=embeddings[None],
                use_cache=False,
                logits_to_keep=torch.tensor(rows, dtype=torch.long, device=self.device),
                **arguments,
            )
        logits: torch.Tensor = output.logits[0]
        return logits
