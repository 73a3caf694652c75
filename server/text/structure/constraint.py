"""GrammarConstraint: one answer's way through a compiled grammar, as the engine asks for it. Knows no structure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

from server.text.structure.errors import StructureFailed

_WORD_BITS = 32


@dataclass(frozen=True, slots=True, eq=False)
class TokenSets:
    """Which of a model's tokens end an answer, and which are text; the same for all answers of a model."""

    stop_token_ids: frozenset[int]
    stop_bits: NDArray[np.int32]  # [ceil(vocab_size / 32)]
    text_bits: NDArray[np.int32]  # [ceil(vocab_size / 32)]: known to the tokenizer, and no stop token

    @classmethod
    def of(cls, vocab_size: int, *, known_token_ids: Iterable[int], stop_token_ids: Iterable[int]) -> Self:
        """Ids beyond the model's vocabulary are left out."""
        stop = frozenset(token_id for token_id in stop_token_ids if 0 <= token_id < vocab_size)
        known = {token_id for token_id in known_token_ids if 0 <= token_id < vocab_size}
        return cls(stop, _bits(stop, vocab_size), _bits(known - stop, vocab_size))


class GrammarConstraint:
    """A TokenConstraint. Stop tokens may come when the grammar may end, and at no other time."""

    def __init__(self, matcher: LLMatcher, tokens: TokenSets) -> None:
        """Owns `matcher`, which has taken no token yet."""
        self._matcher = matcher
        self._tokens = tokens
        self._has_ended = False

    def fill(self, mask: NDArray[np.int32]) -> None:
        """Set the bits of the tokens that may come next. Raises StructureFailed if there are none."""
        if self._has_ended:
            mask |= self._tokens.stop_bits
            return
        allowed = np.frombuffer(self._matcher.compute_bitmask(), np.int32)  # of the larger of the two vocabularies
        if self._matcher.is_error():
            raise StructureFailed("the structure became too complex while the answer was made")
        mask[:] = allowed[: len(mask)] & self._tokens.text_bits
        if self._matcher.is_accepting():
            mask |= self._tokens.stop_bits
        if not mask.any():
            raise StructureFailed("the structure cannot be completed from here with this model's tokens")

    def accept(self, token_id: int) -> None:
        """Go on behind this token. Raises StructureFailed for one that the grammar does not allow."""
        if token_id in self._tokens.stop_token_ids:
            self._has_ended = True
        elif self._has_ended or not self._matcher.consume_token(token_id):
            raise StructureFailed("the structure does not allow the token that was chosen, or became too complex")


def _bits(token_ids: Iterable[int], vocab_size: int) -> NDArray[np.int32]:
    flags = np.zeros(-(-vocab_size // _WORD_BITS) * _WORD_BITS, np.uint8)
    flags[sorted(token_ids)] = 1
    return np.packbits(flags, bitorder="little").view(np.int32)
