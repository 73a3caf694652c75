"""The loss of a batch, a piece that fits in memory at a time. Knows models and batches, no training loop."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Protocol

import torch
from peft import PeftModel

from training.errors import ConfigError
from training.examples import IGNORED_LABEL, Collator, Example, length_groups
from training.loss import summed_answer_loss
from training.packed_model import PackedModel, can_pack
from training.packing import cut_packs, unpadded_rows
from training.recomputing import recomputed

TOKENS_PER_PACK = {"cpu": 384, "cuda": 8192}
"""Where more make a step no faster."""
_ROWS_PER_BATCH = 16
"""Of held-out rows."""
_ROWS_PER_FORWARD_ON_CPU = 4
"""Fewer rows leave less padding, more rows use the matrix units better; a CPU is fastest here."""


class BatchLoss(Protocol):
    """How a batch becomes losses to go backward from."""

    def pieces(self, batch: dict[str, torch.Tensor]) -> Iterator[torch.Tensor]:
        """Sums of the cross entropy in nats, which add up to the batch's; each is to be used before the next."""

    def halve(self) -> bool:
        """Make smaller pieces from now on; False when they are as small as can be."""


class PackedLoss:
    """Rows in packs: see `training.packing`."""

    def __init__(self, model: PeftModel, *, max_tokens: int, checkpointing: bool = False) -> None:
        self._model = PackedModel(model, checkpointing=checkpointing)
        self._max_tokens = max_tokens

    def pieces(self, batch: dict[str, torch.Tensor]) -> Iterator[torch.Tensor]:
        for rows in cut_packs(unpadded_rows(batch), max_tokens=self._max_tokens):
            yield self._model.summed_loss(rows)

    def halve(self) -> bool:
        self._max_tokens //= 2
        return self._max_tokens > 0


class PaddedLoss:
    """Rows of like length, filled up to the longest: right for every model that PEFT takes."""

    def __init__(self, model: PeftModel, *, max_rows: int, checkpointing: bool = False) -> None:
        self._model = model
        self._checkpointing = checkpointing
        # A cache of keys and values, which training never reads, would grow a second time.
        self._forward = partial(model, use_cache=False) if checkpointing else model
        self._max_rows = max_rows

    def pieces(self, batch: dict[str, torch.Tensor]) -> Iterator[torch.Tensor]:
        for group in length_groups(batch, rows_per_group=self._max_rows):
            with recomputed(self._model) if self._checkpointing else nullcontext():
                loss, count = summed_answer_loss(self._forward, num_virtual_tokens=_num_embedded(self._model), **group)
            if count:
                yield loss

    def halve(self) -> bool:
        self._max_rows //= 2
        return self._max_rows > 0


def choose_batch_loss(
    model: PeftModel,
    *,
    packing: bool,
    device: torch.device,
    batch_size: int,
    tokens_per_pack: int | None,
    checkpointing: bool = False,
) -> BatchLoss:
    """Packs where they are asked for and the model's family is known to allow them.

    Raises ConfigError for `checkpointing` where it would lose a prefix: padded rows find it in a cache of the layers'.
    """
    if packing and can_pack(model):
        max_tokens = tokens_per_pack or TOKENS_PER_PACK[device.type]
        return PackedLoss(model, max_tokens=max_tokens, checkpointing=checkpointing)
    if checkpointing and model.active_peft_config.peft_type == "PREFIX_TUNING":
        raise ConfigError(
            ["gradient_checkpointing: a prefix is trained with it in packs only, and these rows are padded"]
        )
    max_rows = _ROWS_PER_FORWARD_ON_CPU if device.type == "cpu" else batch_size
    return PaddedLoss(model, max_rows=max_rows, checkpointing=checkpointing)


def held_out_loss(loss: BatchLoss, examples: Sequence[Example], *, device: torch.device) -> float:
    """Mean cross entropy in nats per answer token, the way training computes it; nothing is generated."""
    return float(held_out_losses(loss.pieces, examples, device=device))


def held_out_losses(
    pieces: Callable[[dict[str, torch.Tensor]], Iterator[torch.Tensor]],
    examples: Sequence[Example],
    *,
    device: torch.device,
) -> torch.Tensor:
    """The same of whatever shape the pieces have, in float64."""
    total, tokens = torch.zeros((), dtype=torch.float64, device=device), 0
    collate = Collator(pad_id=0)
    ordered = sorted(examples, key=lambda example: example.length)
    with torch.no_grad():
        for start in range(0, len(ordered), _ROWS_PER_BATCH):
            features = [example.features() for example in ordered[start : start + _ROWS_PER_BATCH]]
            batch = {name: tensor.to(device) for name, tensor in collate(features).items()}
            total = sum((piece.double() for piece in pieces(batch)), total)
            tokens += int((batch["labels"][:, 1:] != IGNORED_LABEL).sum())
    return total / max(tokens, 1)


def _num_embedded(model: PeftModel) -> int:
    """How many places before a row's text its logits begin: those of virtual tokens that go through the model."""
    config = model.active_peft_config
    if not config.is_prompt_learning or config.peft_type in ("PREFIX_TUNING", "CARTRIDGE"):
        return 0
    count: int = config.num_virtual_tokens
    return count
