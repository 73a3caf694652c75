"""Cross entropy straight from hidden states, a few rows of logits at a time. Knows no model and no batches."""

from typing import Any

import torch

_LOGITS_BYTES = 16 << 20
"""Most bytes of float32 logits that exist at a time, unless so few rows have more."""
_FEWEST_ROWS = 32
"""Of a chunk: the output layer is read once for each, which takes as long as computing so many."""


def summed_cross_entropy(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sum of the cross entropy of `hidden @ head.T` in nats, a float32 scalar that `hidden` gets its gradient from.

    `hidden` is `[rows, hidden_size]`, `head` the frozen output layer `[vocabulary, hidden_size]`, `targets` `[rows]`.
    The full matrix of logits never exists: each chunk's gradient is taken while its logits are there, so that the
    backward pass has only to scale it (d loss / d logits = softmax - one-hot).
    """
    loss: torch.Tensor = _LinearCrossEntropy.apply(hidden, head, targets)  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        needs_gradient = ctx.needs_input_grad[0]
        rows_per_chunk = max(_FEWEST_ROWS, _LOGITS_BYTES // (4 * len(head)))
        total = torch.zeros((), device=hidden.device)
        gradients = []
        for rows, wanted in zip(hidden.split(rows_per_chunk), targets.split(rows_per_chunk), strict=True):
            logits = (rows @ head.T).float()  # [chunk, vocabulary]
            of_wanted = logits.gather(1, wanted[:, None])
            highest = logits.amax(dim=1, keepdim=True)
            shares = logits.sub_(highest).exp_()  # in place: logsumexp would make another matrix of this size
            mass = shares.sum(dim=1, keepdim=True)
            total += (mass.log() + highest - of_wanted).sum()
            if needs_gradient:
                slope = shares.div_(mass)
                slope.scatter_add_(1, wanted[:, None], slope.new_full((len(wanted), 1), -1.0))
                gradients.append(slope.to(head.dtype) @ head)
        ctx.gradient = torch.cat(gradients) if gradients else None
        return total

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        return ctx.gradient * slopes[0].to(ctx.gradient.dtype), None, None
