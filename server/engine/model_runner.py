"""Runs one batch: input embeddings, forward, sampling. Knows no queues, and not how the model computes."""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from torch import nn

from adapters.injections import Injection, SoftPrompt
from server.engine.batch import Batch, ScheduledSequence, StepResult
from server.engine.constraint import TokenConstraint
from server.engine.errors import SequenceFailed
from server.engine.forward import Forward
from server.engine.injecting import delta_rows, kv_placements, without_given_kv
from server.engine.placing import placed
from server.engine.sampler import sample
from server.engine.sampling_row import SamplingRow
from server.engine.scoring import score_prompts
from server.engine.step_inputs import StepInputs


class ModelRunner:
    """Holds the model's own embeddings, and the forward pass that comes after them."""

    def __init__(self, embed: nn.Module, forward: Forward) -> None:
        self._embed = embed
        self._forward = forward

    def run(
        self, batch: Batch, injections: Mapping[int, Injection], constraints: Mapping[int, TokenConstraint]
    ) -> StepResult:
        """Compute a batch, choose a token for each sequence that reaches its end, and read what prompts want.

        `injections` holds, by request id, what the ids below zero stand for, and `constraints` what restricts the
        tokens of some. Raises whatever the model raises. To run the same sequences again is always safe: they write the
        same KV to the same slots, and no constraint is told of a token.
        """
        with torch.inference_mode():
            batch = self._with_kv_written(batch, injections)
            if not batch.items:
                return StepResult({}, {}, {})
            pooled_rows = _pooled_rows(batch)
            if pooled_rows:
                return self._run_pooled(batch, injections, constraints, pooled_rows)
            logits = self._forward.logits(batch, self._inputs(batch, injections), _logit_rows(batch))
            return _read(batch, logits, constraints)

    def logits(self, batch: Batch, injections: Mapping[int, Injection]) -> torch.Tensor:
        """Logits `[R, vocab_size]` at the last position of each item that samples."""
        batch = self._with_kv_written(batch, injections)
        return self._forward.logits(batch, self._inputs(batch, injections), _last_rows(batch))

    def require_fit(self, injection: Injection) -> None:
        """Raise InjectionUnfit for an injection that the model cannot take; see `Forward.require_fit`."""
        self._forward.require_fit(injection)

    def _with_kv_written(self, batch: Batch, injections: Mapping[int, Injection]) -> Batch:
        """Write the KV that is given; the batch without it is left to compute, and may be empty.

        A sequence for which blocks are copied has all of its virtual tokens in them, so an empty batch needs no copies.
        """
        placements = kv_placements(batch, injections)
        if not placements:
            return batch
        self._forward.write_kv(placements)
        return without_given_kv(batch, injections)

    def _inputs(self, batch: Batch, injections: Mapping[int, Injection]) -> StepInputs:
        return StepInputs(self._input_embeddings(batch, injections), delta_rows(batch, injections))

    def _run_pooled(
        self,
        batch: Batch,
        injections: Mapping[int, Injection],
        constraints: Mapping[int, TokenConstraint],
        pooled_rows: Mapping[int, range],
    ) -> StepResult:
        """The same, where some sequences want hidden states, of their packed rows by request id."""
        logits, hidden = self._forward.logits_and_hidden(
            batch,
            self._inputs(batch, injections),
            _logit_rows(batch),
            list(chain.from_iterable(pooled_rows.values())),
        )
        result = _read(batch, logits, constraints)
        failures, sums = dict(result.failures), {}
        for request_id, rows in zip(pooled_rows, hidden.split(list(map(len, pooled_rows.values()))), strict=True):
            row = rows.sum(dim=0, dtype=torch.float64).cpu().numpy()
            if np.isfinite(row).all():
                sums[request_id] = row
            else:
                failures[request_id] = SequenceFailed("the model's hidden states are not numbers for this request")
        return replace(result, failures=failures, hidden_sums=sums)

    def _input_embeddings(self, batch: Batch, injections: Mapping[int, Injection]) -> torch.Tensor:
        """`[T, hidden_size]`: the model's own embeddings, and row i - 1 of the soft prompt for id -i."""
        device, dtype = self._forward.device, self._forward.input_dtype
        ids = list(chain.from_iterable(item.sequence.token_ids[item.start : item.stop] for item in batch.items))
        embeddings: torch.Tensor = self._embed(placed(np.maximum(ids, 0), torch.int64, device)).to(dtype)
        places, rows, row = [], [], 0
        for item in batch.items:
            num_virtual = min(item.stop, item.sequence.num_virtual_tokens) - item.start
            if num_virtual > 0:
                injection = injections[item.sequence.request_id]
                assert isinstance(injection, SoftPrompt), "KV rows are written already"
                places.append(np.arange(row, row + num_virtual))
                rows.append(injection.embeddings[item.start : item.start + num_virtual])
            row += item.num_tokens
        if rows:
            sent = placed(torch.cat(rows), dtype, device)
            embeddings.index_copy_(0, placed(np.concatenate(places), torch.int64, device), sent)
        return embeddings


def _logit_rows(batch: Batch) -> list[int]:
    """Packed rows whose logits are needed: those that tokens are chosen by, then those that score prompts."""
    rows, first = _last_rows(batch), 0
    for item in batch.items:
        if scored := item.scored:
            rows += range(first + scored.start - item.start, first + scored.stop - item.start)
        first += item.num_tokens
    return rows


def _last_rows(batch: Batch) -> list[int]:
    """Packed rows after which a token is chosen."""
    rows, row = [], 0
    for item in batch.items:
        row += item.num_tokens
        if item.samples:
            rows.append(row - 1)
    return rows


def _pooled_rows(batch: Batch) -> dict[int, range]:
    """Packed rows of the pooled sequences' real tokens, by request id; of those that have any in this step."""
    rows, row = {}, 0
    for item in batch.items:
        real = range(row + item.num_virtual_tokens, row + item.num_tokens)
        if item.sequence.is_pooled and real:
            rows[item.sequence.request_id] = real
        row += item.num_tokens
    return rows


def _read(batch: Batch, logits: torch.Tensor, constraints: Mapping[int, TokenConstraint]) -> StepResult:
    """What a step's logits say, which are those of `_logit_rows`; who fails in one thing fails in all."""
    sampling = [item for item in batch.items if item.samples]
    result = _sampled(sampling, logits[: len(sampling)], constraints)
    if len(logits) == len(sampling):
        return result
    scores = score_prompts([item for item in batch.items if item.scored], logits[len(sampling) :])
    return replace(
        result,
        tokens={request_id: token for request_id, token in result.tokens.items() if request_id not in scores.failures},
        failures=result.failures | scores.failures,
        prompt_logprobs=scores.logprobs,
    )


def _sampled(
    items: Items[ScheduledSequence], logits: torch.Tensor, constraints: Mapping[int, TokenConstraint]
) -> StepResult:
    result = StepResult({}, {}, {})
    if not items:
        return result
    rows = [
        SamplingRow(params, sequence.num_output_tokens, sequence.token_table, constraints.get(sequence.request_id))
        for sequence in (item.sequence for item in items)
        if (params := sequence.params)
    ]
    for item, choice in zip(items, sample(logits, rows), strict=True):
        request_id = item.sequence.request_id
        if isinstance(choice, SequenceFailed):
            result.failures[request_id] = choice
        else:
            result.tokens[request_id] = choice.token_id
            if choice.logprobs is not None:
                result.logprobs[request_id] = choice.logprobs
    return result
