"""What comes out of the engine: token ids as they are made, why a sequence ended, and a snapshot of the load."""

from collections.abc import Sequence as Chunks
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class FinishReason(StrEnum):
    """Why a sequence ended by itself. An aborted or failed one has no reason: its consumer left, or gets an error."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The log-probability of a chosen token, and the likeliest tokens with theirs, likeliest first.

    They are those of the model itself, before any setting of the request has changed them.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class PromptLogprobs:
    """Log-probabilities `[N]` of tokens of a prompt, each after all that stand before it, under the model alone.

    The `[N, k]` likeliest tokens in their places, likeliest first, have theirs; ruled out is minus infinity.
    """

    logprobs: NDArray[np.float32]
    top_ids: NDArray[np.int32]
    top_logprobs: NDArray[np.float32]

    @classmethod
    def joined(cls, chunks: "Chunks[PromptLogprobs]") -> "PromptLogprobs":
        """One after the other, which all have the same k; of no chunks, those of no token."""
        if not chunks:
            return cls(np.empty(0, np.float32), np.empty((0, 0), np.int32), np.empty((0, 0), np.float32))
        return cls(
            np.concatenate([chunk.logprobs for chunk in chunks]),
            np.concatenate([chunk.top_ids for chunk in chunks]),
            np.concatenate([chunk.top_logprobs for chunk in chunks]),
        )


@dataclass(frozen=True, slots=True)
class Admission:
    """When a sequence first came into the batch, by the engine's clock, and what it found in the prefix cache then.

    `num_cached_tokens` counts the prompt tokens (virtual ones not included) whose KV was reused from the cache.
    """

    at: float
    num_cached_tokens: int


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """Tokens made since the last delta; the last delta of a sequence has a finish reason, and may have no tokens.

    `logprobs` has one for each of `token_ids` where the request asked for them, and is empty where it did not.
    `prompt_logprobs`, where they were asked for, come once, with the first delta: all but the first prompt token's.
    """

    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None
    admission: Admission | None
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: PromptLogprobs | None = None

    @property
    def num_cached_tokens(self) -> int:
        return 0 if self.admission is None else self.admission.num_cached_tokens


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot of the engine: sequences and KV blocks now, and ended sequences since the start.

    At any moment accepted == finished + failed + aborted + running + waiting.
    """

    num_running: int
    num_waiting: int
    num_free_blocks: int
    num_blocks: int
    num_pinned_blocks: int
    num_accepted: int
    num_finished: int
    num_failed: int
    num_aborted: int
    num_preemptions: int
    num_virtual_tokens_computed: int
    """Virtual tokens whose KV was not in the prefix cache when their sequence was admitted."""
    num_prefix_tokens_asked: int
    """Real tokens of prompts that were looked up in the prefix cache, once for each sequence."""
    num_prefix_tokens_found: int
    block_size: int
