"""Log-probabilities of chosen and likeliest tokens under the model's own logits. Knows no sequences."""

import torch

from server.engine.outputs import TokenLogprobs
from server.engine.sampling_params import MOST_LOGPROBS


def log_probabilities(logits: torch.Tensor, chosen: torch.Tensor, *, with_likeliest: bool) -> torch.Tensor:
    """Float64 `[L, 1 + 2 × N]` of raw logits `[L, V]` and chosen ids `[L]`: the chosen token's log-probability, those
    of the N likeliest, and their ids.

    N is the most that may be asked for, or 0: which of equal ones come first cannot depend on what neighbours ask.
    """
    logprobs = logits.float().log_softmax(dim=-1)  # each row by itself, which a sum over few rows is not
    own = logprobs.gather(1, chosen[:, None])
    if not with_likeliest:
        return own.double()
    top, top_ids = logprobs.topk(min(MOST_LOGPROBS, logits.shape[1]), dim=-1)
    return torch.cat((own.double(), top.double(), top_ids.double()), dim=1)


def read_logprobs(token_id: int, values: list[float], num_top: int) -> TokenLogprobs:
    """One row of `log_probabilities`. Tokens that the model rules out (minus infinity) are not among the likeliest."""
    num_listed = len(values) // 2
    own, top, top_ids = values[0], values[1 : 1 + num_listed], values[1 + num_listed :]
    pairs = list(zip(top_ids, top, strict=True))[:num_top]
    return TokenLogprobs(token_id, own, tuple((int(i), logprob) for i, logprob in pairs if logprob > -torch.inf))
