"""The tokens whose logits one sequence's settings change, and by how much. Knows no tensors and no other sequence."""

from collections import Counter
from collections.abc import Sequence as Tokens

import numpy as np
from numpy.typing import NDArray

from server.engine.sampling_params import SamplingParams

_FIRST_ROOM = 64
_BIAS, _FACTOR, _DEDUCTION = range(3)


class TokenTable:
    """Kept up to date token by token, so that a step only copies it.

    It follows from the tokens alone: whether the sequence was preempted meanwhile changes nothing.
    """

    def __init__(self, params: SamplingParams, prompt_ids: Tokens[int]) -> None:
        self._params = params
        self._places: dict[int, int] = {}
        self._counts: Counter[int] = Counter()
        self._ids = np.zeros(_FIRST_ROOM, dtype=np.int64)
        self._amounts = np.zeros((3, _FIRST_ROOM))
        for token_id, bias in params.logit_bias:
            place = self._place(token_id)  # first: it may move the arrays
            self._amounts[_BIAS, place] += bias
        if params.repetition_penalty != 1:
            for token_id in dict.fromkeys(prompt_ids):
                place = self._place(token_id)
                self._amounts[_FACTOR, place] = params.repetition_penalty

    @classmethod
    def of(cls, params: SamplingParams, prompt_ids: Tokens[int]) -> "TokenTable | None":
        """The table of a sequence that has made nothing yet; None where its settings change no token's logit."""
        return cls(params, prompt_ids) if params.logit_bias or params.has_penalties else None

    @property
    def ids(self) -> NDArray[np.int64]:
        """Token ids `[N]`, each once."""
        return self._ids[: len(self._places)]

    @property
    def amounts(self) -> NDArray[np.float64]:
        """`[3, N]`: what is added to each id's logit; what then divides it, or multiplies it where it is not positive;
        and what is then taken off."""
        return self._amounts[:, : len(self._places)]

    def add(self, token_id: int) -> None:
        """Count a token that the sequence has made."""
        if not self._params.has_penalties:
            return
        place = self._place(token_id)
        self._counts[token_id] += 1
        self._amounts[_FACTOR, place] = self._params.repetition_penalty
        self._amounts[_DEDUCTION, place] = (
            self._counts[token_id] * self._params.frequency_penalty + self._params.presence_penalty
        )

    def _place(self, token_id: int) -> int:
        """Where the token stands, which is at the end when it is new."""
        place = self._places.get(token_id)
        if place is not None:
            return place
        place = len(self._places)
        if place == len(self._ids):
            self._ids = np.concatenate((self._ids, np.zeros_like(self._ids)))
            self._amounts = np.concatenate((self._amounts, np.zeros_like(self._amounts)), axis=1)
        self._places[token_id] = place
        self._ids[place] = token_id
        self._amounts[_FACTOR, place] = 1
        return place
