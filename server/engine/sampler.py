"""Chooses the next token of each row by its own settings, all rows at once. Knows no sequences and no cache.

The order: log-probabilities of the model's logits; then bias, penalties, no stop token too early, the constraint; then
the likeliest token, or one at random. The model's logits are left as they are: what changes them works on a copy of the
rows concerned, and a row that uses nothing pays for nothing. On CUDA the host waits once, for all results together.
"""

from collections.abc import Sequence as Rows
from dataclasses import dataclass

import torch

from server.engine.drawing import draw
from server.engine.errors import NoTokenAllowed, SequenceFailed
from server.engine.logprobs import log_probabilities, read_logprobs
from server.engine.masks import TokenMask, forbid, forbid_outside
from server.engine.outputs import TokenLogprobs
from server.engine.penalties import apply_tables
from server.engine.placing import fetched, placed
from server.engine.sampling_row import SamplingRow


@dataclass(frozen=True, slots=True)
class Choice:
    """The token chosen for one row, and its log-probabilities where they were asked for."""

    token_id: int
    logprobs: TokenLogprobs | None


@dataclass(frozen=True, slots=True)
class _ShapedRows:
    """The rows whose logits are not the model's own: which of the step's they are, and float32 logits `[S, V]`.

    `failures` has those whose constraint gave no mask, by the step's row.
    """

    rows: list[int]
    logits: torch.Tensor
    failures: dict[int, SequenceFailed]


def sample(logits: torch.Tensor, rows: Rows[SamplingRow]) -> list[Choice | SequenceFailed]:
    """What is chosen for each row of `logits` `[R, vocab_size]`, or why the row fails, which harms no other."""
    chosen, is_number = _likeliest(logits)
    shaped = _shaped(logits, rows)
    is_possible = is_number[:0]
    if shaped is not None:
        index = placed(shaped.rows, torch.long, logits.device)
        chosen[index], is_possible = _likeliest(shaped.logits)
    drawn = [i for i, row in enumerate(rows) if not row.params.is_greedy]
    if drawn:
        index = placed(drawn, torch.long, logits.device)
        chosen[index] = draw(_logits_of(drawn, logits, shaped), [rows[i] for i in drawn])
    reporting = [i for i, row in enumerate(rows) if row.params.num_logprobs is not None]
    logprobs = is_number[:0]
    if reporting:
        index = placed(reporting, torch.long, logits.device)
        with_likeliest = any(rows[i].params.num_logprobs for i in reporting)
        logprobs = log_probabilities(logits[index], chosen[index], with_likeliest=with_likeliest)
    tokens, numbers, possible, reports = fetched(chosen, is_number, is_possible, logprobs)
    failures = _failures(numbers, possible, shaped)
    return _choices(tokens, failures, _reports(rows, reporting, tokens, reports))


def _likeliest(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row's likeliest token, the lowest id among equals, and whether the row has one.

    What is not a number is taken for the largest; so where the largest is one, all are, or minus infinity.
    """
    chosen = logits.argmax(dim=-1)
    return chosen, logits.gather(1, chosen[:, None])[:, 0].isfinite()


def _shaped(logits: torch.Tensor, rows: Rows[SamplingRow]) -> _ShapedRows | None:
    """A copy of the logits of the rows that need it, with all changes made, in their order."""
    chosen = [i for i, row in enumerate(rows) if row.is_shaped]
    if not chosen:
        return None
    vocab_size = logits.shape[1]
    copy = logits[placed(chosen, torch.long, logits.device)].float()
    subset = [rows[i] for i in chosen]
    masks, failures = _masks(subset, vocab_size)
    apply_tables(copy, {i: row.table for i, row in enumerate(subset) if row.table is not None})
    forbid(copy, {i: row.params.stop_token_ids for i, row in enumerate(subset) if _bans_stop(row, masks.get(i))})
    forbid_outside(copy, masks)
    return _ShapedRows(chosen, copy, {chosen[i]: error for i, error in failures.items()})


def _masks(rows: Rows[SamplingRow], vocab_size: int) -> tuple[dict[int, TokenMask], dict[int, SequenceFailed]]:
    masks: dict[int, TokenMask] = {}
    failures: dict[int, SequenceFailed] = {}
    for i, row in enumerate(rows):
        if row.constraint is not None:
            try:
                masks[i] = TokenMask(row.constraint, vocab_size)
            except SequenceFailed as error:
                failures[i] = error
    return masks, failures


def _bans_stop(row: SamplingRow, mask: TokenMask | None) -> bool:
    """Where a constraint allows nothing but stop tokens it is stronger than min_tokens."""
    return row.bans_stop and (mask is None or mask.allows_other_than(row.params.stop_token_ids))


def _logits_of(chosen: list[int], logits: torch.Tensor, shaped: _ShapedRows | None) -> torch.Tensor:
    """Float32 logits `[D, V]` of some rows, as they were shaped."""
    if shaped is None and len(chosen) == len(logits):
        return logits.float()
    if shaped is not None and chosen == shaped.rows:
        return shaped.logits
    taken = logits[placed(chosen, torch.long, logits.device)].float()
    places = {row: place for place, row in enumerate(shaped.rows)} if shaped else {}
    both = [(i, places[row]) for i, row in enumerate(chosen) if row in places]
    if shaped and both:
        targets, sources = (placed(list(some), torch.long, logits.device) for some in zip(*both, strict=True))
        taken[targets] = shaped.logits[sources]
    return taken


def _failures(numbers: list[float], possible: list[float], shaped: _ShapedRows | None) -> dict[int, SequenceFailed]:
    """Why rows fail. What the model did comes before what a constraint did, and that before what both leave."""
    failures: dict[int, SequenceFailed] = {}
    if shaped is not None:
        for row, is_possible in zip(shaped.rows, possible, strict=True):
            if not is_possible:
                failures[row] = NoTokenAllowed("the settings of this request leave no token that may come next")
        failures |= shaped.failures
    for row, is_number in enumerate(numbers):
        if not is_number:
            failures[row] = SequenceFailed("the model's output is not a number for this request")
    return failures


def _reports(
    rows: Rows[SamplingRow], reporting: list[int], tokens: list[float], values: list[float]
) -> dict[int, TokenLogprobs]:
    """By row; `values` are those of `log_probabilities`, row after row."""
    width = len(values) // max(1, len(reporting))
    return {
        row: read_logprobs(int(tokens[row]), values[i * width : (i + 1) * width], rows[row].params.num_logprobs or 0)
        for i, row in enumerate(reporting)
    }


def _choices(
    tokens: list[float], failures: dict[int, SequenceFailed], reports: dict[int, TokenLogprobs]
) -> list[Choice | SequenceFailed]:
    return [failures.get(i) or Choice(int(token), reports.get(i)) for i, token in enumerate(tokens)]
