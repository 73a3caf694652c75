"""The rule that tells a verified adapter from one that answers otherwise, has no effect, or has nothing to show."""

from collections.abc import Sequence

import pytest

from adapters.probes import NumberType, Probe, Probes
from adapters.verification import EngineNumbers, Replay, Verification, compared

EXPECTED = (1, 2, 3)
OTHER = (1, 2, 4)
WRONG_FIRST = (9, 2, 3)


def _probes(count: int = 8, *, dtype: NumberType = "float32") -> Probes:
    probe = Probe(prompt_ids=(7,), expected_ids=EXPECTED, mean_logprob=-0.5)
    return Probes(dtype=dtype, chat_format="f", items=(probe,) * count)


def _verify(
    replays: Sequence[Replay | None],
    *,
    numbers: EngineNumbers = "float32",
    dtype: NumberType = "float32",
    equals_base: bool = False,
    chat_format: str | None = "f",
) -> Verification:
    return compared(
        _probes(len(replays), dtype=dtype),
        replays,
        chat_format=chat_format,
        equals_base=equals_base,
        numbers=numbers,
        checked=1,
    )


SAME = Replay(EXPECTED, -0.5)


def test_the_same_answers_are_verified() -> None:
    result = _verify([SAME] * 8)
    assert (result.state, result.num_probes, result.num_replayed, result.num_equal) == ("verified", 8, 8, 8)
    assert (result.largest_difference, result.probe, result.detail) == (0, None, "")


@pytest.mark.parametrize(
    ("replay", "numbers", "dtype", "state"),
    [
        (Replay(OTHER, -0.5), "float32", "float32", "mismatch"),
        (Replay(EXPECTED, -0.5005), "float32", "float32", "verified"),
        (Replay(EXPECTED, -0.502), "float32", "float32", "mismatch"),
        (Replay(OTHER, -0.5), "bfloat16", "float32", "verified"),
        (Replay(OTHER, -0.5), "float32", "bfloat16", "verified"),
        (Replay(OTHER, -0.6), "bfloat16", "bfloat16", "verified"),
        (Replay(OTHER, -0.7), "bfloat16", "float32", "mismatch"),
        (Replay(EXPECTED, -0.3), "float16", "float32", "mismatch"),
        (Replay(OTHER, -0.9), "int8", "float32", "verified"),
        (Replay(EXPECTED, -1.6), "int8", "float32", "mismatch"),
    ],
)
def test_one_probe_that_is_off_is_held_to_what_rounding_explains(
    replay: Replay, numbers: EngineNumbers, dtype: NumberType, state: str
) -> None:
    result = _verify([*[SAME] * 5, replay, SAME, SAME], numbers=numbers, dtype=dtype)
    assert result.state == state
    assert result.probe == (5 if state == "mismatch" else None)
    assert ("probe 5" in result.detail) == (state == "mismatch")


@pytest.mark.parametrize(("num_wrong", "state"), [(2, "verified"), (3, "mismatch")])
def test_three_of_four_answers_begin_as_expected(num_wrong: int, state: str) -> None:
    replays = [*[Replay(WRONG_FIRST, -0.5)] * num_wrong, *[SAME] * (8 - num_wrong)]
    assert _verify(replays, numbers="bfloat16").state == state


def test_an_answer_that_ends_early_is_another_one() -> None:
    result = _verify([Replay(EXPECTED[:2], -0.5)])
    assert (result.state, result.probe) == ("mismatch", 0)
    assert "at token 2" in result.detail


def test_answers_of_the_base_model_are_no_effect() -> None:
    result = _verify([SAME] * 8, equals_base=True)
    assert result.state == "no_effect"
    assert "no effect" in result.detail


def test_a_mismatch_counts_before_no_effect() -> None:
    assert _verify([Replay(OTHER, -0.5)], equals_base=True).state == "mismatch"


def test_another_chat_format_is_a_mismatch() -> None:
    result = _verify([SAME], chat_format=None)
    assert (result.state, result.probe) == ("mismatch", None)
    assert "chat format" in result.detail


def test_what_there_is_no_room_for_is_left_out() -> None:
    result = _verify([None, Replay(OTHER, -0.5)])
    assert (result.state, result.probe, result.num_replayed) == ("mismatch", 1, 1)
    assert _verify([None, SAME]).state == "verified"
    assert _verify([None, None]).state == "unverified"
