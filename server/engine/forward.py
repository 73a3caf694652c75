"""What computes a step: packed embeddings in, logits out. Knows no sampling, no queues and no adapter files."""

from collections.abc import Sequence as Rows
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import numpy as np
import torch
from transformers import PreTrainedModel

from adapters.injections import Injection, KVRows, WeightDelta
from server.engine.batch import Batch
from server.engine.fitting import require_kv_fit
from server.engine.hidden_states import last_hidden_states
from server.engine.kv_cache import KVCache
from server.engine.own_attention import takes_positions
from server.engine.placing import placed, placed_together
from server.engine.step_inputs import KVPlacement, StepInputs
from server.engine.step_layout import packed_positions
from server.engine.weight_deltas import WeightDeltas


class Forward(Protocol):
    """One model with its KV cache; there is one step at a time."""

    @property
    def device(self) -> torch.device:
        """Where embeddings are taken and logits are given."""

    @property
    def input_dtype(self) -> torch.dtype:
        """Of the embeddings."""

    def require_fit(self, injection: Injection) -> None:
        """Raise InjectionUnfit for KV rows and weight deltas that do not fit this model; any thread may ask.

        A soft prompt is not looked at.
        """

    def write_kv(self, placements: Rows[KVPlacement]) -> None:
        """Write keys and values that are given, and fit, to their places in the cache, where a step then finds them.

        To write the same again is always safe.
        """

    def logits(self, batch: Batch, inputs: StepInputs, rows: Rows[int]) -> torch.Tensor:
        """Logits `[R, vocab_size]` at packed rows, after the inputs of a batch's tokens.

        Copies blocks first, as the batch says, and leaves the KV of every token in the cache. Raises whatever the model
        raises. To compute the same sequences again is always safe.
        """

    def logits_and_hidden(
        self, batch: Batch, inputs: StepInputs, rows: Rows[int], hidden_rows: Rows[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Beside the logits, the last hidden states `[H, hidden_size]`, after the last norm, at packed `hidden_rows`.

        All else is as `logits` has it, which is for the steps, most of them, in which nobody wants these.
        """


class StepAttention(Protocol):
    """What the layers of a model call, one step at a time."""

    def step(self, batch: Batch) -> AbstractContextManager[None]:
        """Everything attended inside belongs to this batch."""


class PackedModel:
    """A stock transformers model over rows of many sequences, packed into one; its attention tells them apart."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._takes_positions = takes_positions(model)

    @property
    def device(self) -> torch.device:
        return self._model.device

    @property
    def dtype(self) -> torch.dtype:
        return self._model.dtype

    def logits(self, embeddings: torch.Tensor, positions: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
        """Logits `[R, vocab_size]` at `rows` `[R]`, or at all, of embeddings `[T, hidden_size]` at positions `[T]`."""
        arguments = {"position_ids": positions[None]} if self._takes_positions else {}
        output = self._model(
            inputs_embeds=embeddings[None],
            use_cache=False,
            logits_to_keep=0 if rows is None else rows,  # transformers' word for all
            **arguments,
        )
        logits: torch.Tensor = output.logits[0]
        return logits

    def last_hidden_states(self) -> AbstractContextManager[list[torch.Tensor]]:
        """See `hidden_states`."""
        return last_hidden_states(self._model)


class StockForward:
    """A stock model, whose attention layers call `attention`, which reads and writes `cache`; `deltas` are on it."""

    def __init__(self, model: PackedModel, cache: KVCache, attention: StepAttention, deltas: WeightDeltas) -> None:
        self._model = model
        self._cache = cache
        self._attention = attention
        self._deltas = deltas

    @property
    def device(self) -> torch.device:
        return self._model.device

    @property
    def input_dtype(self) -> torch.dtype:
        return self._model.dtype

    def require_fit(self, injection: Injection) -> None:
        """See `Forward`."""
        if isinstance(injection, KVRows):
            require_kv_fit(injection, self._cache.layers)
        elif isinstance(injection, WeightDelta):
            self._deltas.require_fit(injection)

    def write_kv(self, placements: Rows[KVPlacement]) -> None:
        """See `Forward`."""
        for placement in placements:
            self._cache.write(placement)

    def logits(self, batch: Batch, inputs: StepInputs, rows: Rows[int]) -> torch.Tensor:
        """See `Forward`."""
        self._cache.copy(batch.copies)
        arrays = [packed_positions(batch), np.array(rows, dtype=np.int64)]
        positions, kept = placed_together(arrays, torch.int64, self.device)
        with self._attention.step(batch), self._changing(inputs, batch):
            return self._model.logits(inputs.embeddings, positions, kept)

    def logits_and_hidden(
        self, batch: Batch, inputs: StepInputs, rows: Rows[int], hidden_rows: Rows[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Forward`."""
        with self._model.last_hidden_states() as seen:
            logits = self.logits(batch, inputs, rows)
        hidden = seen[-1][0]
        return logits, hidden.index_select(0, placed(hidden_rows, torch.int64, hidden.device))

    def _changing(self, inputs: StepInputs, batch: Batch) -> AbstractContextManager[None]:
        if not inputs.deltas:
            return nullcontext()
        return self._deltas.over(inputs.deltas, num_rows=batch.num_tokens)
