"""The mean of a sequence's last hidden states, gathered step by step. Knows no tensors of torch and no model."""

import numpy as np
from numpy.typing import NDArray


class MeanPool:
    """Sums up the rows of a sequence's real tokens, which begin at position `first`."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._sum: NDArray[np.float64] | None = None  # [hidden_size]
        self._stop = first

    def add(self, sums: NDArray[np.float64], *, start: int, stop: int) -> None:
        """Enter the sum `[hidden_size]` of the real tokens among the positions `[start, stop)`.

        A step that reaches back to the first real token begins anew: the sequence was preempted.
        """
        assert start <= max(self._first, self._stop) <= stop, "a step leaves tokens out"
        self._sum = sums if self._sum is None or start <= self._first else self._sum + sums
        self._stop = stop

    def mean(self) -> NDArray[np.float32]:
        """The mean `[hidden_size]` of all that was entered."""
        assert self._sum is not None, "nothing was entered"
        return (self._sum / (self._stop - self._first)).astype(np.float32)
