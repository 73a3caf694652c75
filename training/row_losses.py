"""Cross entropy of each row's answers, with logits only where there is a label. Knows no trainer and no files."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from training.examples import IGNORED_LABEL


@dataclass(frozen=True, slots=True)
class RowLoss:
    """Sum of the cross entropy over a row's labelled tokens, in nats, and how many they are."""

    total: float
    tokens: int


def row_losses(
    model: Callable[..., Any], *, labels: torch.Tensor, num_virtual_tokens: int, **inputs: torch.Tensor
) -> list[RowLoss]:
    """The loss of each row of a batch; arguments are those of `summed_answer_loss`."""
    is_labelled = labels[:, 1:] != IGNORED_LABEL  # column c of it is the token that position c of the text predicts
    columns = is_labelled.any(dim=0).nonzero().squeeze(1)  # [kept]
    logits = model(**inputs, logits_to_keep=columns + num_virtual_tokens).logits  # [batch, kept, vocabulary]
    wanted = is_labelled[:, columns]  # [batch, kept]
    targets = labels[:, 1:][:, columns]
    return [
        RowLoss(float(cross_entropy(row[mask].float(), target[mask], reduction="sum")), int(mask.sum()))
        for row, mask, target in zip(logits, wanted, targets, strict=True)
    ]
