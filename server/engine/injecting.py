"""What the injections of a batch's sequences ask of its step. Knows no model and no cache."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from adapters.injections import Injection, KVRows, WeightDelta
from server.engine.batch import Batch, ScheduledSequence
from server.engine.step_inputs import DeltaRows, KVPlacement


def kv_placements(batch: Batch, injections: Mapping[int, Injection]) -> list[KVPlacement]:
    """Where the KV of virtual tokens goes that is given; `injections` are by request id."""
    placements = []
    for item in batch.items:
        injection = injections.get(item.sequence.request_id)
        if isinstance(injection, KVRows) and item.num_virtual_tokens:
            stop = item.start + item.num_virtual_tokens
            placements.append(KVPlacement(injection, item.start, stop, tuple(item.sequence.block_table)))
    return placements


def without_given_kv(batch: Batch, injections: Mapping[int, Injection]) -> Batch:
    """What is left to compute of a batch when the KV of virtual tokens that is given is in its place."""
    items = []
    for item in batch.items:
        if isinstance(injections.get(item.sequence.request_id), KVRows) and item.num_virtual_tokens:
            num_left = item.num_tokens - item.num_virtual_tokens
            if num_left == 0:
                continue
            items.append(ScheduledSequence(item.sequence, item.start + item.num_virtual_tokens, num_left))
        else:
            items.append(item)
    return Batch(tuple(items), batch.copies)


def delta_rows(batch: Batch, injections: Mapping[int, Injection]) -> tuple[DeltaRows, ...]:
    """The packed rows of each adapter that changes weights, by digest, in the order in which they come."""
    deltas: dict[str, WeightDelta] = {}
    ranges: dict[str, list[NDArray[np.int64]]] = {}
    row = 0
    for item in batch.items:
        injection = injections.get(item.sequence.request_id)
        if isinstance(injection, WeightDelta):
            deltas.setdefault(injection.digest, injection)
            ranges.setdefault(injection.digest, []).append(np.arange(row, row + item.num_tokens))
        row += item.num_tokens
    return tuple(DeltaRows(delta, np.concatenate(ranges[digest])) for digest, delta in deltas.items())
