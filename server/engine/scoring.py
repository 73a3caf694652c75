"""Reads how likely the tokens of prompts are, from the logits before them. Knows no forward pass and no cache."""

from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from server.engine.batch import ScheduledSequence
from server.engine.errors import SequenceFailed
from server.engine.logprobs import log_probabilities
from server.engine.outputs import PromptLogprobs
from server.engine.placing import placed

_SLICE = 32
"""Rows that are there in float32 at a time."""


@dataclass(frozen=True, slots=True)
class PromptScores:
    """By request id: what a step has read of prompts, and why some could not be read."""

    logprobs: dict[int, PromptLogprobs]
    failures: dict[int, Exception]


def score_prompts(items: Items[ScheduledSequence], logits: torch.Tensor) -> PromptScores:
    """The log-probabilities of the prompt tokens after the items' scored positions, whose logits are `[S, vocab_size]`.

    The rows are those of one item after the other. An item whose logits are not numbers harms no other.
    """
    targets = [item.sequence.token_ids[position + 1] for item in items for position in item.scored]
    values = _log_probabilities(logits, targets, with_likeliest=any(_num_top(item) for item in items))
    scores, first = PromptScores({}, {}), 0
    for item in items:
        own = values[first : first + len(item.scored)]
        first += len(item.scored)
        request_id = item.sequence.request_id
        if np.isnan(own[:, 0]).any():
            scores.failures[request_id] = SequenceFailed("the model's output is not a number for this request")
        else:
            scores.logprobs[request_id] = _of_rows(own, _num_top(item))
    return scores


def _log_probabilities(logits: torch.Tensor, targets: list[int], *, with_likeliest: bool) -> NDArray[np.float64]:
    """See `logprobs.log_probabilities`; on the host, by one transfer."""
    chosen = placed(targets, torch.long, logits.device)
    parts = [
        log_probabilities(part, ids, with_likeliest=with_likeliest)
        for part, ids in zip(logits.split(_SLICE), chosen.split(_SLICE), strict=True)
    ]
    return torch.cat(parts).cpu().numpy()


def _of_rows(values: NDArray[np.float64], num_top: int) -> PromptLogprobs:
    num_listed = values.shape[1] // 2
    num_top = min(num_top, num_listed)
    return PromptLogprobs(
        values[:, 0].astype(np.float32),
        values[:, 1 + num_listed : 1 + num_listed + num_top].astype(np.int32),
        values[:, 1 : 1 + num_top].astype(np.float32),
    )


def _num_top(item: ScheduledSequence) -> int:
    params = item.sequence.params
    assert params is not None, "who scores was asked to"
    return params.num_prompt_logprobs or 0
