"""Cross entropy of the answers, with logits only where there is a label. Knows no trainer and no files."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from training.examples import IGNORED_LABEL


def summed_answer_loss(
    model: Callable[..., Any], *, labels: torch.Tensor, num_virtual_tokens: int, **inputs: torch.Tensor
) -> tuple[torch.Tensor, int]:
    """Sum of the cross entropy over all labelled positions in nats, and how many they are.

    `labels` is `[batch, width]` over the text; the model's positions start `num_virtual_tokens` earlier. The model is
    asked for the columns only in which some row has a label, never for all positions of a large vocabulary.
    """
    is_labelled = labels[:, 1:] != IGNORED_LABEL  # column c of it is the token that position c of the text predicts
    columns = is_labelled.any(dim=0).nonzero().squeeze(1)  # [kept]
    logits = model(**inputs, logits_to_keep=columns + num_virtual_tokens).logits  # [batch, kept, vocabulary]
    wanted = is_labelled[:, columns]  # [batch, kept]
    targets = labels[:, 1:][:, columns][wanted]  # [labelled]
    return cross_entropy(logits[wanted].float(), targets, reduction="sum"), targets.numel()
