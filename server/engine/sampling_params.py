"""How the tokens of one sequence are chosen. Knows no tensors."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """One sequence's own settings; they hold whatever runs beside it in the batch."""

    max_tokens: int
    """Most tokens to generate, at least 1."""
    temperature: float = 1.0
    """0 is greedy: the most likely token, the lowest id among equals."""
    top_p: float = 1.0
    """Smallest set of most likely tokens whose probabilities reach this sum; 1 keeps all."""
    top_k: int | None = None
    """Only the k most likely tokens; None keeps all."""
    seed: int = 0
    """With the position it decides each random choice, so a sequence's tokens do not depend on its neighbours."""
    stop_token_ids: frozenset[int] = frozenset()
    """Ids that end the sequence; the id itself is not part of the answer."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError("max_tokens must be at least 1")
        if self.temperature < 0:
            raise ValueError("temperature must be 0 or more")
        if not 0 < self.top_p <= 1:
            raise ValueError("top_p must be over 0 and at most 1")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError("top_k must be at least 1")

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0
