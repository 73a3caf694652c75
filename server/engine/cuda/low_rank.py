"""What computes the low-rank changes of many adapters at once, and what it is given. Knows no model and no Triton."""

from dataclasses import dataclass
from typing import Protocol

import torch

LARGEST_RANK = 64
"""Adapters of higher ranks are not recorded: their steps run eagerly."""
SPLITS = 8
"""Into so many parts are a row's inputs cut, so that a few rows keep the device busy; their sums are added in order."""


@dataclass(frozen=True, slots=True)
class LowRankTable:
    """One module's factors, by the adapter's slot, on the device. They are told by address, for a recording reads them
    again in every step.

    `addresses` `[slots, 2]`, int64: of `down` `[rank, in]` and `up` `[out, rank]`, both contiguous, at multiples of 16
    bytes, and in the inputs' dtype. `ranks` `[slots]`, int32: 0 where an adapter leaves the module alone.
    """

    addresses: torch.Tensor
    ranks: torch.Tensor


class LowRankKernel(Protocol):
    """Adds to each row of a module's outputs what the row's adapter adds."""

    def __call__(
        self,
        inputs: torch.Tensor,
        outputs: torch.Tensor,
        slots: torch.Tensor,
        table: LowRankTable,
        scratch: torch.Tensor,
    ) -> None:
        """`outputs[t] += up @ (down @ inputs[t])`, with the factors of slot `slots[t]`; none where that is -1.

        `inputs` `[T, in]` and `outputs` `[T, out]` are of one dtype, their rows contiguous; `slots` `[T]` is int32;
        `scratch` is float32, `[T or more, SPLITS, LARGEST_RANK]`, of any content. Sums are float32, and a row's run in
        the same order whatever is computed beside it. Waits for nothing.
        """


def new_scratch(num_rows: int, device: torch.device) -> torch.Tensor:
    """See `LowRankKernel`."""
    return torch.zeros(num_rows, SPLITS, LARGEST_RANK, dtype=torch.float32, device=device)
