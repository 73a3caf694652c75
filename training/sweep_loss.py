"""The losses of several adapters on one base over the same rows, in one pass. Knows no training loop."""

from collections.abc import Iterator, Sequence

import torch
from peft import PeftModel

from training.packed_model import PackedModel
from training.packing import cut_packs, unpadded_rows


class CandidatesLoss:
    """Packs as in PackedLoss, every candidate behind its own virtual tokens: all of one kind and number."""

    def __init__(self, models: Sequence[PeftModel], *, max_tokens: int, checkpointing: bool = False) -> None:
        self._models = tuple(models)
        self._packed = PackedModel(models[0], checkpointing=checkpointing)
        self._max_tokens = max_tokens
        self.active: tuple[int, ...] = tuple(range(len(models)))
        """Candidates that are still trained, by number."""

    def keep(self, numbers: Sequence[int]) -> None:
        """Train these from now on, and no others."""
        self.active = tuple(sorted(numbers))

    def pieces(self, batch: dict[str, torch.Tensor]) -> Iterator[torch.Tensor]:
        """Sums of the cross entropy in nats, `[active]` each."""
        models = [self._models[number] for number in self.active]
        for rows in cut_packs(unpadded_rows(batch), max_tokens=max(1, self._max_tokens // len(models))):
            yield self._packed.summed_losses(models, rows)

    def halve(self) -> bool:
        """Make smaller pieces from now on; False when they are as small as can be."""
        self._max_tokens //= 2
        return self._max_tokens > 0
