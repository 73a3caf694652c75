"""What one step computes, complete at birth. Knows no tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from server.engine.outputs import PromptLogprobs, TokenLogprobs
from server.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """The first `num_rows` rows of block `source` are copied to block `target` before the step computes."""

    source: int
    target: int
    num_rows: int


@dataclass(frozen=True, slots=True)
class ScheduledSequence:
    """The positions `[start, start + num_tokens)` of a sequence, to be computed in this step."""

    sequence: Sequence
    start: int
    num_tokens: int

    @property
    def stop(self) -> int:
        return self.start + self.num_tokens

    @property
    def samples(self) -> bool:
        """Whether the step reaches the sequence's last token, so that the next one can be chosen."""
        return self.stop == self.sequence.num_tokens and self.sequence.makes_tokens

    @property
    def scored(self) -> range:
        """The positions of the step whose logits say how likely the prompt's next token is, where that is wanted."""
        sequence = self.sequence
        if not sequence.is_scoring:
            return range(0)
        return range(max(self.start, sequence.num_scored_tokens), min(self.stop, sequence.num_prompt_tokens - 1))

    @property
    def num_virtual_tokens(self) -> int:
        """How many of its tokens are virtual: the first ones."""
        return min(max(self.sequence.num_virtual_tokens - self.start, 0), self.num_tokens)


@dataclass(frozen=True, slots=True)
class Batch:
    """The sequences of one step, decoding ones first, and the block copies that go before it."""

    items: tuple[ScheduledSequence, ...]
    copies: tuple[BlockCopy, ...]

    @property
    def num_tokens(self) -> int:
        return sum(item.num_tokens for item in self.items)

    def halves(self) -> "tuple[Batch, Batch]":
        """Two batches that together compute the same; both copy, which changes nothing when done twice."""
        middle = len(self.items) // 2
        return Batch(self.items[:middle], self.copies), Batch(self.items[middle:], self.copies)


@dataclass(frozen=True, slots=True)
class StepResult:
    """By request id: the token chosen for each sequence that sampled, and the exception of each that failed.

    `logprobs` has those of the chosen tokens whose sequences asked for them.
    `hidden_sums` `[hidden_size]` are of the pooled sequences that computed real tokens: the sum of these tokens' last
    hidden states.
    `prompt_logprobs` are of the sequences that scored prompt tokens in this step: those of the tokens after `scored`.
    """

    tokens: dict[int, int]
    failures: dict[int, Exception]
    logprobs: dict[int, TokenLogprobs] = field(default_factory=dict)
    hidden_sums: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)
    prompt_logprobs: Mapping[int, PromptLogprobs] = field(default_factory=dict)
