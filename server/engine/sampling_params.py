"""How the tokens of one sequence are chosen. Knows no tensors."""

from dataclasses import dataclass
from math import isfinite

MOST_LOGPROBS = 20
_LARGEST_BIAS = 100
_LARGEST_PENALTY = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """One sequence's own settings; they hold whatever runs beside it in the batch.

    They act in this order: logit_bias, repetition_penalty, frequency_penalty with presence_penalty, min_tokens, the
    request's constraint, temperature, min_p, top_k, top_p.
    """

    max_tokens: int
    """Most tokens to generate; 0 ends with the prompt, which is computed all the same."""
    min_tokens: int = 0
    """`stop_token_ids` are not chosen before so many tokens; a constraint that allows nothing else is stronger."""
    temperature: float = 1.0
    """0 is greedy: the most likely token, the lowest id among equals."""
    top_p: float = 1.0
    """Smallest set of most likely tokens whose probabilities reach this sum; 1 keeps all."""
    top_k: int | None = None
    """Only the k most likely tokens; None keeps all."""
    min_p: float = 0.0
    """Only tokens at least so likely, as a share of the likeliest one's probability; 0 keeps all."""
    presence_penalty: float = 0.0
    """Taken off the logit of each token that the sequence has made; -2 to 2."""
    frequency_penalty: float = 0.0
    """Taken off a token's logit as many times as the sequence has made it; -2 to 2."""
    repetition_penalty: float = 1.0
    """Divides the positive logits of tokens in prompt and answer, multiplies negative ones; over 0, and 1 is none."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Token ids, and what is added to their logits, -100 to 100; what is said twice of an id adds up."""
    seed: int = 0
    """With the position it decides each random choice, so a sequence's tokens do not depend on its neighbours."""
    stop_token_ids: frozenset[int] = frozenset()
    """Ids that end the sequence; the id itself is not part of the answer."""
    num_logprobs: int | None = None
    """Report each token's log-probability and those of so many likeliest, 0 to 20; None reports nothing."""
    num_prompt_logprobs: int | None = None
    """The same for each token of the prompt but the first, which has none before it; virtual ones are not counted."""

    def __post_init__(self) -> None:
        if self.max_tokens < 0:
            raise ValueError("max_tokens must be 0 or more")
        if self.min_tokens < 0:
            raise ValueError("min_tokens must be 0 or more")
        self._check_drawing()
        self._check_penalties()
        for name in ("num_logprobs", "num_prompt_logprobs"):
            if (number := getattr(self, name)) is not None and not 0 <= number <= MOST_LOGPROBS:
                raise ValueError(f"{name} must be 0 to {MOST_LOGPROBS}")

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    @property
    def cuts_tail(self) -> bool:
        """Whether unlikely tokens are left out by rank or sum."""
        return self.top_k is not None or self.top_p < 1

    @property
    def has_penalties(self) -> bool:
        """Whether tokens that are there already become less or more likely."""
        return self.presence_penalty != 0 or self.frequency_penalty != 0 or self.repetition_penalty != 1

    def _check_drawing(self) -> None:
        if not (isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError("temperature must be 0 or more")
        if not 0 < self.top_p <= 1:
            raise ValueError("top_p must be over 0 and at most 1")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError("top_k must be at least 1")
        if not 0 <= self.min_p <= 1:
            raise ValueError("min_p must be 0 to 1")

    def _check_penalties(self) -> None:
        for name in ("presence_penalty", "frequency_penalty"):
            if not abs(getattr(self, name)) <= _LARGEST_PENALTY:  # true of what is not a number
                raise ValueError(f"{name} must be -{_LARGEST_PENALTY} to {_LARGEST_PENALTY}")
        if not (isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise ValueError("repetition_penalty must be over 0")
        for token_id, bias in self.logit_bias:
            if token_id < 0:
                raise ValueError("logit_bias must name token ids of 0 or more")
            if not abs(bias) <= _LARGEST_BIAS:
                raise ValueError(f"logit_bias must be -{_LARGEST_BIAS} to {_LARGEST_BIAS}")
