"""Draws tokens at random, row by row. Knows no sequences and no penalties.

A row's random number is turned into a token by inverting the cumulative distribution of what temperature, min_p, top_k
and top_p leave, in this order.
"""

from collections.abc import Sequence as Rows
from math import log

import torch

from server.engine.placing import placed
from server.engine.sampling_params import SamplingParams
from server.engine.sampling_row import SamplingRow

_HEADS = (128, 2048)
"""Numbers of tokens among which most rows' head lies; finding them is much cheaper than sorting the vocabulary."""
_INVERT_BLOCK = 256
_LOWEST_TEMPERATURE = 1e-7
"""Below it nothing changes any more, and logits divided by it would overflow."""


def draw(logits: torch.Tensor, rows: Rows[SamplingRow]) -> torch.Tensor:
    """Token ids `[R]` drawn from float32 logits `[R, V]`; no row of which is greedy."""
    device = logits.device
    probabilities = _probabilities(logits, rows)
    uniforms = placed([row.uniform() for row in rows], torch.float64, device)
    cut = [i for i, row in enumerate(rows) if row.params.cuts_tail]
    if not cut:
        return _invert(probabilities, uniforms)
    params = [rows[i].params for i in cut]
    if len(cut) == len(rows):
        return _draw_from_head(probabilities, uniforms, params)
    whole = placed([i for i, row in enumerate(rows) if not row.params.cuts_tail], torch.long, device)
    index = placed(cut, torch.long, device)
    chosen = torch.empty(len(rows), dtype=torch.long, device=device)
    chosen[whole] = _invert(probabilities[whole], uniforms[whole])
    chosen[index] = _draw_from_head(probabilities[index], uniforms[index], params)
    return chosen


def _probabilities(logits: torch.Tensor, rows: Rows[SamplingRow]) -> torch.Tensor:
    """`[R, V]`, after temperature and min_p; each row adds up to 1."""
    device = logits.device
    temperatures = [max(row.params.temperature, _LOWEST_TEMPERATURE) for row in rows]
    scaled = logits / placed(temperatures, torch.float32, device)[:, None]
    least = {i: log(row.params.min_p) for i, row in enumerate(rows) if row.params.min_p > 0}
    if least:
        index = placed(list(least), torch.long, device)
        some = scaled[index]
        lowest = some.amax(dim=-1) + placed(list(least.values()), torch.float32, device)
        scaled[index] = some.masked_fill(some < lowest[:, None], -torch.inf)
    return scaled.softmax(dim=-1)


def _draw_from_head(probabilities: torch.Tensor, uniforms: torch.Tensor, params: list[SamplingParams]) -> torch.Tensor:
    """Draw from what top-k, then top-p leave.

    On the CPU only rows whose head is longer than `_HEADS` sort the vocabulary. Elsewhere it would take longer to ask
    the device which rows these are.
    """
    vocab_size = probabilities.shape[1]
    limits = placed([min(p.top_k or vocab_size, vocab_size) for p in params], torch.long, probabilities.device)
    shares = placed([p.top_p for p in params], torch.float32, probabilities.device)
    if probabilities.device.type == "cpu":
        return _draw_from_short_head(probabilities, uniforms, limits, shares)
    return _draw_from_sorted(probabilities, uniforms, limits, shares)


def _draw_from_short_head(
    probabilities: torch.Tensor, uniforms: torch.Tensor, limits: torch.Tensor, shares: torch.Tensor
) -> torch.Tensor:
    vocab_size = probabilities.shape[1]
    chosen = torch.zeros_like(limits)
    open_rows = torch.arange(len(limits))
    for size in (head for head in _HEADS if head < vocab_size):
        values, token_ids = probabilities[open_rows].topk(size, dim=-1)
        drawn, is_whole = _draw_from_ordered(
            values, token_ids, uniforms[open_rows], limits[open_rows], shares[open_rows], vocab_size=vocab_size
        )
        chosen[open_rows] = drawn
        open_rows = open_rows[~is_whole]
        if not len(open_rows):
            return chosen
    chosen[open_rows] = _draw_from_sorted(
        probabilities[open_rows], uniforms[open_rows], limits[open_rows], shares[open_rows]
    )
    return chosen


def _draw_from_sorted(
    probabilities: torch.Tensor, uniforms: torch.Tensor, limits: torch.Tensor, shares: torch.Tensor
) -> torch.Tensor:
    values, token_ids = probabilities.sort(dim=-1, descending=True, stable=True)
    drawn, _ = _draw_from_ordered(values, token_ids, uniforms, limits, shares, vocab_size=probabilities.shape[1])
    return drawn


def _draw_from_ordered(
    values: torch.Tensor,
    token_ids: torch.Tensor,
    uniforms: torch.Tensor,
    limits: torch.Tensor,
    shares: torch.Tensor,
    *,
    vocab_size: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids `[R]` drawn from the likeliest tokens of each row `[R, N]`, and whether a row's whole head is among them.

    The head is the first `limits` tokens, and of those the first whose probabilities reach `shares` of theirs. Where it
    is not whole the id means nothing.
    """
    num_listed = values.shape[1]
    ranks = torch.arange(num_listed, device=values.device)[None, :]
    kept = values.masked_fill(ranks >= limits[:, None], 0)
    up_to = kept.cumsum(dim=-1)
    is_limited = limits <= num_listed
    mass = torch.where(is_limited, up_to[:, -1], torch.ones_like(shares))  # all of the vocabulary's is 1
    before = up_to - kept  # the likelier tokens' sum: the first token is always kept
    head = kept.masked_fill(before >= (shares * mass)[:, None], 0)
    is_whole = is_limited | ((limits == vocab_size) & (up_to[:, -1] >= shares))
    return token_ids.gather(1, _invert(head, uniforms)[:, None])[:, 0], is_whole


def _invert(probabilities: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """The first index whose cumulative probability exceeds uniform × total. probabilities `[R, V]`, uniforms `[R]`.

    First the block of 256 by the blocks' sums, then the index in the block: summing up all of them is slow.
    """
    num_rows, size = probabilities.shape
    padding = -size % _INVERT_BLOCK
    padded = torch.nn.functional.pad(probabilities, (0, padding)) if padding else probabilities
    blocks = padded.view(num_rows, -1, _INVERT_BLOCK)
    ends = blocks.sum(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    targets = uniforms * ends[:, -1]
    block = _first_beyond(ends, targets)
    row = torch.arange(num_rows, device=probabilities.device)
    inside = blocks[row, block].double().cumsum(dim=-1)
    before = torch.where(block > 0, ends[row, block - 1], 0)
    index = block * _INVERT_BLOCK + _first_beyond(inside, targets - before)
    return index.clamp(max=size - 1)  # so that a row that is not a number, which fails, points nowhere else


def _first_beyond(ends: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The first index `[R]` whose running sum `[R, N]` exceeds the row's target `[R]`.

    Where rounding has put the target at the end or beyond, the last index that adds anything to the sum.
    """
    first = torch.searchsorted(ends, targets[:, None], right=True)
    last = torch.searchsorted(ends, ends[:, -1:].contiguous())
    return torch.minimum(first, last)[:, 0].clamp(max=ends.shape[1] - 1)
