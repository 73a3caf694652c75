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
    """What came of a probe: the greedy answer, and what is said of the expected one, both in nats: the mean
    log-probability of its tokens, and how much likelier the first choice is than its first token (0: they are one)."""

    token_ids: tuple[int, ...]
    mean_logprob: float
    first_gap: float


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far replays may be from their probes, in nats: the mean log-probability of any one, of all on average, and
    the first gap in `near_firsts` of them; and whether all tokens must be equal."""

    logprob: float
    average: float
    first_gap: float
    near_firsts: float
    equal_tokens: bool


# Measured on SmolLM2-135M with 11 adapters of five kinds and 8 to 60 steps, 8 probes each, answers of 1 to 16 tokens.
# In float32 one probe is 3e-6 off. In bfloat16 the largest was 0.19 (0.49 once), the largest average 0.08, the largest
# gap 0.16; in int8 0.81, 0.21 and 2.1 (one probe). The first two rows swapped: average 0.07 to 2.2; the base instead of
# the adapter, or rows of zeros: 0.3 (one weak adapter) to 12. Two neighbours in the middle swapped: like rounding.
_EXACT = Tolerance(logprob=1e-3, average=1e-3, first_gap=0.0, near_firsts=1.0, equal_tokens=True)
_ROUNDED = Tolerance(logprob=0.75, average=0.15, first_gap=0.3, near_firsts=0.75, equal_tokens=False)
_QUANTIZED = Tolerance(logprob=2.0, average=0.6, first_gap=0.6, near_firsts=0.5, equal_tokens=False)


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
    and every token after it is another, so the log-probability of the given answer decides. Rounding moves single
    probes by chance and their average little; what is wrong with an adapter moves them all."""
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


def _problem(pairs: Sequence[_Pair], tolerance: Tolerance) -> tuple[int | None, str]:
    """The first probe that is too far off, or the farthest of those that are so on average, and how far; an empty text
    where none is."""
    for pair in pairs:
        if pair.difference > tolerance.logprob:
            return pair.index, _off(pair, tolerance)
        if tolerance.equal_tokens and not pair.is_equal:
            return pair.index, (
                f"probe {pair.index}: its answer differs from the expected one at token {pair.first_difference}, "
                f"which float32 does not explain"
            )
    average = sum(pair.difference for pair in pairs) / len(pairs)
    if average > tolerance.average:
        farthest = max(pairs, key=lambda pair: pair.difference)
        return farthest.index, (
            f"the mean log-probabilities of the probes' answers are {average:.4f} nats off on average, and "
            f"{tolerance.average:g} is as far as they may be; probe {farthest.index} is the farthest"
        )
    far = [pair for pair in pairs if pair.replay.first_gap > tolerance.first_gap]
    if len(pairs) - len(far) < tolerance.near_firsts * len(pairs):
        return far[0].index, (
            f"probe {far[0].index}: {len(pairs) - len(far)} of {len(pairs)} answers begin with the expected token or "
            f"one nearly as likely ({tolerance.first_gap:g} nats), {tolerance.near_firsts:.0%} must"
        )
    return None, ""


def _off(pair: _Pair, tolerance: Tolerance) -> str:
    return (
        f"probe {pair.index}: the mean log-probability of its answer is {pair.replay.mean_logprob:.4f} here, "
        f"{pair.expected_logprob:.4f} is expected, and {tolerance.logprob:g} is as far as it may be off"
    )
