"""What the sampler is told of one row of logits. Knows no sequences and no tensors."""

import hashlib
import struct
from dataclasses import dataclass

from server.engine.constraint import TokenConstraint
from server.engine.sampling_params import SamplingParams
from server.engine.token_table import TokenTable


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """One row's settings, and how many tokens its sequence has made before."""

    params: SamplingParams
    position: int
    table: TokenTable | None = None
    """What bias and penalties change, if anything."""
    constraint: TokenConstraint | None = None

    @property
    def bans_stop(self) -> bool:
        """Whether it is too early for a stop token."""
        return self.position < self.params.min_tokens and bool(self.params.stop_token_ids)

    @property
    def is_shaped(self) -> bool:
        """Whether the token is chosen by other logits than the model's own."""
        return self.table is not None or self.constraint is not None or self.bans_stop

    def uniform(self) -> float:
        """The row's random number in [0, 1): a function of seed and position alone, so neighbours cannot change it."""
        message = struct.pack("<QQ", self.params.seed & (2**64 - 1), self.position)
        return (int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "little") >> 11) / (1 << 53)
