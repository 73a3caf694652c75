"""The rule that tells a verified adapter from one that answers otherwise, has no effect, or has nothing to show."""

from collections.abc import Sequence

import pytest

from adapters.probes import NumberType, Probe, Probes
from adapters.verification import EngineNumbers, Replay, Verification, compared

EXPECTED = (1, 2, 3)
OTHER = (1, 2, 4)
WRONG_FIRST = (9, 2, 3)


def _probes(count: int, *, dtype: NumberType, logprob: float) -> Probes:
    probe = Probe(prompt_ids=(7,), expected_ids=EXPECTED, mean_logprob=logprob)
    return Probes(dtype=dtype, chat_format="f", items=(probe,) * count)


def _replay(token_ids: tuple[int, ...], mean_logprob: float, *, first_gap: float = 0.0) -> Replay:
    return Replay(token_ids, mean_logprob, first_gap)


def _verify(
    replays: Sequence[Replay | None],
    *,
    numbers: EngineNumbers = "float32",
    dtype: NumberType = "float32",
    equals_base: bool = False,
    chat_format: str | None = "f",
    expected_logprob: float = -0.5,
) -> Verification:
    return compared(
        _probes(len(replays), dtype=dtype, logprob=expected_logprob),
        replays,
        chat_format=chat_format,
        equals_base=equals_base,
        numbers=numbers,
        checked=1,
    )


SAME = _replay(EXPECTED, -0.5)


def test_the_same_answers_are_verified() -> None:
    result = _verify([SAME] * 8)
    assert (result.state, result.num_probes, result.num_replayed, result.num_equal) == ("verified", 8, 8, 8)
    assert (result.largest_difference, result.probe, result.detail) == (0, None, "")


@pytest.mark.parametrize(
    ("replay", "numbers", "dtype", "state"),
    [
        (_replay(OTHER, -0.5), "float32", "float32", "mismatch"),
        (_replay(EXPECTED, -0.5005), "float32", "float32", "verified"),
        (_replay(EXPECTED, -0.502), "float32", "float32", "mismatch"),
        (_replay(OTHER, -0.5), "bfloat16", "float32", "verified"),
        (_replay(OTHER, -0.5), "float32", "bfloat16", "verified"),
        (_replay(OTHER, -1.2), "bfloat16", "bfloat16", "verified"),
        (_replay(OTHER, -1.3), "bfloat16", "float32", "mismatch"),
        (_replay(EXPECTED, -0.0), "float16", "float32", "verified"),
        (_replay(EXPECTED, -1.3), "float16", "float32", "mismatch"),
        (_replay(OTHER, -2.4), "int8", "float32", "verified"),
        (_replay(EXPECTED, -2.6), "int8", "float32", "mismatch"),
    ],
)
def test_one_probe_that_is_off_is_held_to_what_rounding_explains(
    replay: Replay, numbers: EngineNumbers, dtype: NumberType, state: str
) -> None:
    result = _verify([*[SAME] * 5, replay, SAME, SAME], numbers=numbers, dtype=dtype)
    assert result.state == state
    assert result.probe == (5 if state == "mismatch" else None)
    assert ("probe 5" in result.detail) == (state == "mismatch")


@pytest.mark.parametrize(
    ("numbers", "off", "state"),
    [
        ("bfloat16", 0.14, "verified"),
        ("bfloat16", 0.16, "mismatch"),
        ("int8", 0.55, "verified"),
        ("int8", 0.65, "mismatch"),
    ],
)
def test_what_is_off_everywhere_is_no_rounding(numbers: EngineNumbers, off: float, state: str) -> None:
    """Up and down alike: the average is one of distances."""
    replays = [_replay(OTHER, -0.7 - off), _replay(OTHER, -0.7 + off)] * 4
    result = _verify(replays, numbers=numbers, expected_logprob=-0.7)
    assert result.state == state
    assert ("on average" in result.detail) == (state == "mismatch")


@pytest.mark.parametrize(
    ("num_far", "gap", "state"), [(2, 2.0, "verified"), (3, 2.0, "mismatch"), (8, 0.2, "verified")]
)
def test_three_of_four_answers_begin_as_expected_or_nearly(num_far: int, gap: float, state: str) -> None:
    replays = [*[_replay(WRONG_FIRST, -0.5, first_gap=gap)] * num_far, *[SAME] * (8 - num_far)]
    result = _verify(replays, numbers="bfloat16")
    assert result.state == state
    assert ("nearly as likely" in result.detail) == (state == "mismatch")


def test_an_answer_that_ends_early_is_another_one() -> None:
    result = _verify([_replay(EXPECTED[:2], -0.5)])
    assert (result.state, result.probe) == ("mismatch", 0)
    assert "at token 2" in result.detail


def test_answers_of_the_base_model_are_no_effect() -> None:
    result = _verify([SAME] * 8, equals_base=True)
    assert result.state == "no_effect"
    assert "no effect" in result.detail


def test_a_mismatch_counts_before_no_effect() -> None:
    assert _verify([_replay(OTHER, -0.5)], equals_base=True).state == "mismatch"


def test_another_chat_format_is_a_mismatch() -> None:
    result = _verify([SAME], chat_format=None)
    assert (result.state, result.probe) == ("mismatch", None)
    assert "chat format" in result.detail


def test_what_there_is_no_room_for_is_left_out() -> None:
    result = _verify([None, _replay(OTHER, -0.5)])
    assert (result.state, result.probe, result.num_replayed) == ("mismatch", 1, 1)
    assert _verify([None, SAME]).state == "verified"
    assert _verify([None, None]).state == "unverified"
