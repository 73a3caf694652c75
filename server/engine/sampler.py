"""Chooses the next token of each row by its own settings. Knows no sequences and no cache."""

import hashlib
import struct
from dataclasses import dataclass

import torch

from server.engine.sampling_params import SamplingParams


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
    logits = logits / torch.tensor([row.params.temperature for row in rows], device=device)[:, None]
    uniforms = torch.tensor([row.uniform() for row in rows], dtype=torch.float64, device=device)
    chosen = torch.empty(len(rows), dtype=torch.long, device=device)
    for cut in (False, True):  # only rows that cut the tail off pay for sorting the vocabulary
        group = [i for i, row in enumerate(rows) if _cuts_tail(row.params) is cut]
        if not group:
            continue
        index = torch.tensor(group, device=device)
        if cut:
            chosen[index] = _draw_from_top(logits[index], uniforms[index], [rows[i].params for i in group])
        else:
            chosen[index] = _invert(logits[index].softmax(dim=-1), uniforms[index])
    return chosen


def _cuts_tail(params: SamplingParams) -> bool:
    return params.top_k is not None or params.top_p < 1


def _draw_from_top(logits: torch.Tensor, uniforms: torch.Tensor, params: list[SamplingParams]) -> torch.Tensor:
    vocab_size = logits.shape[1]
    ordered, token_ids = logits.sort(dim=-1, descending=True, stable=True)
    top_k = torch.tensor([min(p.top_k or vocab_size, vocab_size) for p in params], device=logits.device)[:, None]
    ranks = torch.arange(vocab_size, device=logits.device)[None, :]
    probabilities = ordered.masked_fill(ranks >= top_k, float("-inf")).softmax(dim=-1)
    top_p = torch.tensor([p.top_p for p in params], device=logits.device)[:, None]
    before = probabilities.cumsum(dim=-1) - probabilities  # the likelier tokens' sum: the first token is always kept
    probabilities = probabilities.masked_fill(before >= top_p, 0)
    return token_ids.gather(1, _invert(probabilities, uniforms)[:, None])[:, 0]


def _invert(probabilities: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """The first index whose cumulative probability exceeds uniform × total. probabilities `[R, V]`, uniforms `[R]`."""
    cumulative = probabilities.double().cumsum(dim=-1)
    targets = uniforms * cumulative[:, -1]
    return torch.searchsorted(cumulative, targets[:, None], right=True)[:, 0].clamp(max=probabilities.shape[1] - 1)
