"""Chooses the next token of each row by its own settings. Knows no sequences and no cache."""

import hashlib
import struct
from dataclasses import dataclass

import torch

from server.engine.sampling_params import SamplingParams

_HEADS = (128, 2048)
"""Numbers of tokens among which most rows' head lies; finding them is much cheaper than sorting the vocabulary."""
_INVERT_BLOCK = 256


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """One row's settings, and how many tokens its sequence has made before."""

    params: SamplingParams
    position: int

    def uniform(self) -> float:
        """The row's random number in [0, 1): a function of seed and position alone, so neighbours cannot change it."""
        message = struct.pack("<QQ", self.params.seed & (2**64 - 1), self.position)
        return (int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "little") >> 11) / (1 << 53)


def sample(logits: torch.Tensor, rows: list[SamplingRow]) -> list[int]:
    """The next token id of each row of `logits` `[R, vocab_size]`.

    Greedy rows take the most likely token. The others are drawn by inverting the cumulative distribution of what
    temperature, then top-k, then top-p leave.
    """
    chosen = logits.argmax(dim=-1)
    drawn = [i for i, row in enumerate(rows) if not row.params.is_greedy]
    if drawn:
        subset = rows if len(drawn) == len(rows) else [rows[i] for i in drawn]
        index = torch.tensor(drawn, device=logits.device)
        chosen[index] = _draw(logits[index].float(), subset)
    return [int(token) for token in chosen.tolist()]


def _draw(logits: torch.Tensor, rows: list[SamplingRow]) -> torch.Tensor:
    """Token ids `[R]` drawn from float32 logits `[R, V]`."""
    device = logits.device
    temperatures = torch.tensor([row.params.temperature for row in rows], device=device)
    probabilities = (logits / temperatures[:, None]).softmax(dim=-1)
    uniforms = torch.tensor([row.uniform() for row in rows], dtype=torch.float64, device=device)
    chosen = torch.empty(len(rows), dtype=torch.long, device=device)
    for cut in (False, True):  # only rows that cut the tail off pay for looking for the head
        group = [i for i, row in enumerate(rows) if _cuts_tail(row.params) is cut]
        if not group:
            continue
        index = torch.tensor(group, device=device)
        if cut:
            chosen[index] = _draw_from_head(probabilities[index], uniforms[index], [rows[i].params for i in group])
        else:
            chosen[index] = _invert(probabilities[index], uniforms[index])
    return chosen


def _cuts_tail(params: SamplingParams) -> bool:
    return params.top_k is not None or params.top_p < 1


def _draw_from_head(probabilities: torch.Tensor, uniforms: torch.Tensor, params: list[SamplingParams]) -> torch.Tensor:
    """Draw from what top-k, then top-p leave. Only rows whose head is longer than `_HEADS` sort the vocabulary."""
    vocab_size = probabilities.shape[1]
    limits = torch.tensor([min(p.top_k or vocab_size, vocab_size) for p in params], device=probabilities.device)
    shares = torch.tensor([p.top_p for p in params], device=probabilities.device)
    chosen = torch.zeros_like(limits)
    open_rows = torch.arange(len(params), device=probabilities.device)
    for size in (*(head for head in _HEADS if head < vocab_size), vocab_size):
        values, token_ids = _likeliest(probabilities[open_rows], size)
        drawn, is_whole = _draw_from_ordered(
            values, token_ids, uniforms[open_rows], limits[open_rows], shares[open_rows]
        )
        chosen[open_rows] = drawn
        open_rows = open_rows[~is_whole]
        if not len(open_rows):
            break
    return chosen


def _likeliest(probabilities: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    if size < probabilities.shape[1]:
        values, token_ids = probabilities.topk(size, dim=-1)
    else:
        values, token_ids = probabilities.sort(dim=-1, descending=True, stable=True)
    return values, token_ids


def _draw_from_ordered(
    values: torch.Tensor, token_ids: torch.Tensor, uniforms: torch.Tensor, limits: torch.Tensor, shares: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids `[R]` drawn from the likeliest tokens of each row `[R, N]`, and whether a row's whole head is among them.

    The head is the first `limits` tokens, and of those the first whose probabilities reach `shares` of theirs.
    """
    num_listed = values.shape[1]
    ranks = torch.arange(num_listed, device=values.device)[None, :]
    kept = values.masked_fill(ranks >= limits[:, None], 0)
    is_limited = limits <= num_listed
    mass = torch.where(is_limited, kept.sum(dim=-1), torch.ones_like(shares))  # all of the vocabulary's is 1
    before = kept.cumsum(dim=-1) - kept  # the likelier tokens' sum: the first token is always kept
    head = kept.masked_fill(before >= (shares * mass)[:, None], 0)
    is_whole = is_limited | (kept.sum(dim=-1) >= shares * mass)
    return token_ids.gather(1, _invert(head, uniforms)[:, None])[:, 0], is_whole


def _invert(probabilities: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """The first index whose cumulative probability exceeds uniform × total. probabilities `[R, V]`, uniforms `[R]`.

    First the block of 256 by the blocks' sums, then the index in the block: summing up all of them is slow.
    """
    num_rows, size = probabilities.shape
    padded = torch.nn.functional.pad(probabilities, (0, -size % _INVERT_BLOCK))
    blocks = padded.view(num_rows, -1, _INVERT_BLOCK)
    ends = blocks.sum(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    targets = uniforms * ends[:, -1]
    block = torch.searchsorted(ends, targets[:, None], right=True)[:, 0].clamp(max=ends.shape[1] - 1)
    row = torch.arange(num_rows, device=probabilities.device)
    inside = blocks[row, block].double().cumsum(dim=-1)
    left = targets - torch.where(block > 0, ends[row, block - 1], 0)
    offset = torch.searchsorted(inside, left[:, None], right=True)[:, 0].clamp(max=_INVERT_BLOCK - 1)
    return _last_possible(padded, block * _INVERT_BLOCK + offset)


def _last_possible(probabilities: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The index; where rounding has led past the end, to a token of no probability, the last one before it that has."""
    row = torch.arange(len(index), device=index.device)
    if bool((probabilities[row, index] > 0).all()):
        return index
    positions = torch.arange(probabilities.shape[1], device=index.device)[None, :]
    possible = (probabilities > 0) & (positions <= index[:, None])
    return torch.where(possible, positions, 0).amax(dim=-1)
