"""Which tokens may come next: by a constraint, and no stop tokens too early. Knows no sequences and no grammar."""

from collections.abc import Collection, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from server.engine.constraint import TokenConstraint, failing_alone
from server.engine.errors import NoTokenAllowed
from server.engine.placing import placed

_WORD_BITS = 32


class TokenMask:
    """The tokens of the vocabulary that one row's constraint allows next, as bits on the host; there is at least one.

    `words` is `[ceil(vocab_size / 32)]`.
    """

    def __init__(self, constraint: TokenConstraint, vocab_size: int) -> None:
        """Raises NoTokenAllowed where the constraint fails or allows nothing."""
        self.words: NDArray[np.int32] = np.zeros(-(-vocab_size // _WORD_BITS), dtype=np.int32)
        with failing_alone():
            constraint.fill(self.words)
        num_last = vocab_size % _WORD_BITS
        if num_last:
            self.words[-1] &= (1 << num_last) - 1
        if not self.words.any():
            raise NoTokenAllowed("the constraint on this request's tokens allows none to come next")

    def allows_other_than(self, token_ids: Collection[int]) -> bool:
        """Whether a token that is not one of these may come next."""
        rest = self.words.view(np.uint32).copy()
        for token_id in token_ids:
            if token_id // _WORD_BITS < len(rest):
                rest[token_id // _WORD_BITS] &= ~np.uint32(1 << token_id % _WORD_BITS)
        return bool(rest.any())


def forbid_outside(logits: torch.Tensor, masks: Mapping[int, TokenMask]) -> None:
    """Set logits `[S, V]` to minus infinity in place, at each row wherever its mask has no bit."""
    if not masks:
        return
    forbidden = _forbidden(np.stack([mask.words for mask in masks.values()]), logits)
    if len(masks) == len(logits):
        logits.masked_fill_(forbidden, -torch.inf)
    else:
        index = placed(list(masks), torch.long, logits.device)
        logits[index] = logits[index].masked_fill(forbidden, -torch.inf)


def forbid(logits: torch.Tensor, banned: Mapping[int, Collection[int]]) -> None:
    """Set logits `[S, V]` to minus infinity in place, at each row for its ids, of which those beyond V are nothing."""
    vocab_size = logits.shape[1]
    flat_ids = [row * vocab_size + token_id for row, ids in banned.items() for token_id in ids if token_id < vocab_size]
    if flat_ids:
        logits.view(-1).index_fill_(0, placed(flat_ids, torch.long, logits.device), -torch.inf)


def _forbidden(words: NDArray[np.int32], logits: torch.Tensor) -> torch.Tensor:
    """Bool `[C, V]`, true where words `[C, ceil(V / 32)]` have no bit. Only the bits travel to a device."""
    octets = words.astype("<i4", copy=False).view(np.uint8)  # bit i of the words is bit i % 8 of octet i // 8
    vocab_size = logits.shape[1]
    if logits.device.type == "cpu":  # numpy unpacks bits many times faster than torch shifts them
        bits = torch.from_numpy(np.unpackbits(octets, axis=1, count=vocab_size, bitorder="little"))
    else:
        shifts = torch.arange(8, dtype=torch.uint8, device=logits.device)
        bits = placed(octets, torch.uint8, logits.device)[:, :, None] >> shifts & 1
        bits = bits.view(len(words), -1)[:, :vocab_size]
    return bits == 0
