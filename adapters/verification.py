"""Whether an adapter answers its probes as it did where it was made: the rule, and its result. Knows no engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from adapters.probes import Probes

VerificationState = Literal["verified", "mismatch", "no_effect", "unverified"]
EngineNumbers = Literal["float32", "float16", "bfloat16", "int8"]

NO_PROBES = "the adapter has no probes"


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of a probe: the greedy answer, and the mean log-probability in nats of the expected one's tokens."""

    token_ids: tuple[int, ...]
    mean_logprob: float


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a replay may be from its probe: each probe's mean log-probability in nats, its tokens, and the share of
    probes whose first token is the expected one."""

    logprob: float
    equal_tokens: bool
    first_tokens: float


# Measured on SmolLM2-135M with answers of 2 to 16 tokens, the largest difference of 12 probes: float32 3e-6; bfloat16
# 0.02 against probes in float32 and 0.04 against PEFT's own bfloat16; int8 0.32. Two rows swapped make 0.6, no row 9.
_EXACT = Tolerance(logprob=1e-3, equal_tokens=True, first_tokens=1.0)
_ROUNDED = Tolerance(logprob=0.15, equal_tokens=False, first_tokens=0.75)
_QUANTIZED = Tolerance(logprob=1.0, equal_tokens=False, first_tokens=0.5)


class Verification(BaseModel):
    """The result of replaying an adapter's probes, kept with its version; `checked` in seconds since the epoch.

    `largest_difference` is that of the mean log-probabilities, in nats; `probe` is the first that is wrong, from 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    state: VerificationState
    engine: EngineNumbers
    checked: int
    num_probes: int = Field(default=0, ge=0)
    num_replayed: int = Field(default=0, ge=0)
    num_equal: int = Field(default=0, ge=0)
    largest_difference: float | None = None
    probe: int | None = None
    detail: str = Field(default="", max_length=512)


def tolerance_of(made_in: EngineNumbers, replayed_in: EngineNumbers) -> Tolerance:
    """What rounding explains. In float32 on both sides the tokens must be equal; else a near tie may fall either way,
    and every token after it is another, so the log-probability of the given answer decides."""
    if replayed_in == "int8":
        return _QUANTIZED
    return _EXACT if made_in == replayed_in == "float32" else _ROUNDED


def unverified(detail: str, numbers: EngineNumbers, *, checked: int, num_probes: int = 0) -> Verification:
    """The result where nothing could be compared."""
    return Verification(state="unverified", engine=numbers, checked=checked, num_probes=num_probes, detail=detail)


def compared(
    probes: Probes,
    replays: Sequence[Replay | None],
    *,
    chat_format: str | None,
    equals_base: bool,
    numbers: EngineNumbers,
    checked: int,
) -> Verification:
    """Compare replays, None for those that there was no room for, with what the probes expect.

    `chat_format` is the fingerprint of the adapter's chat format now. `equals_base`: the base model alone gave every
    one of the answers.
    """
    pairs = [
        _Pair(index, probe.expected_ids, probe.mean_logprob, replay)
        for index, (probe, replay) in enumerate(zip(probes.items, replays, strict=True))
        if replay is not None
    ]
    if not pairs:
        detail = "no probe fits into this model's context and vocabulary"
        return unverified(detail, numbers, checked=checked, num_probes=len(replays))
    wrong, problem = _problem(pairs, tolerance_of(probes.dtype, numbers))
    if probes.chat_format != chat_format:
        wrong, problem = None, "the probes were made with another chat format than the adapter has"
    state: VerificationState = "mismatch" if problem else "no_effect" if equals_base else "verified"
    if state == "no_effect":
        problem = "the adapter has no effect: its answers to the probes equal the base model's"
    return Verification(
        state=state,
        engine=numbers,
        checked=checked,
        num_probes=len(replays),
        num_replayed=len(pairs),
        num_equal=sum(pair.is_equal for pair in pairs),
        largest_difference=max(pair.difference for pair in pairs),
        probe=wrong,
        detail=problem,
    )


@dataclass(frozen=True, slots=True)
class _Pair:
    index: int
    expected_ids: tuple[int, ...]
    expected_logprob: float
    replay: Replay

    @property
    def difference(self) -> float:
        return abs(self.replay.mean_logprob - self.expected_logprob)

    @property
    def is_equal(self) -> bool:
        return self.replay.token_ids == self.expected_ids

    @property
    def first_difference(self) -> int:
        """Where the answers part; one may be the other's beginning."""
        both = list(zip(self.replay.token_ids, self.expected_ids, strict=False))
        return next((place for place, (made, expected) in enumerate(both) if made != expected), len(both))

    @property
    def is_first_equal(self) -> bool:
        return self.replay.token_ids[:1] == self.expected_ids[:1]


def _problem(pairs: Sequence[_Pair], tolerance: Tolerance) -> tuple[int | None, str]:
    """The first probe that is too far off, and how far; an empty text where none is."""
    for pair in pairs:
        if pair.difference > tolerance.logprob:
            return pair.index, (
                f"probe {pair.index}: the mean log-probability of its answer is {pair.replay.mean_logprob:.4f} here, "
                f"{pair.expected_logprob:.4f} is expected, and {tolerance.logprob:g} is as far as it may be off"
            )
        if tolerance.equal_tokens and not pair.is_equal:
            place = pair.first_difference
            return pair.index, (
                f"probe {pair.index}: its answer differs from the expected one at token {place}, "
                f"which float32 does not explain"
            )
    num_first = sum(pair.is_first_equal for pair in pairs)
    if num_first < tolerance.first_tokens * len(pairs):
        wrong = next(pair.index for pair in pairs if not pair.is_first_equal)
        return wrong, (
            f"probe {wrong}: {num_first} of {len(pairs)} answers begin with the expected token, "
            f"{tolerance.first_tokens:.0%} must"
        )
    return None, ""
