"""How large a chunk beside decoding sequences may be, in plain numbers."""

import pytest

from server.engine.pacing import FIRST_TOKENS, LEAST_TOKENS, MEASURE_EVERY, NO_STALL_SECONDS, PrefillPacer, share_of


def _run(
    pacer: PrefillPacer, *, decode: float, fixed: float = 0.0, token: float, prompts: int = 1, steps: int = 200
) -> list[float]:
    """Durations of steps that hold as many prompt tokens as they may; each costs `token` seconds, a chunk `fixed`."""
    durations = []
    for _ in range(steps):
        tokens = pacer.num_tokens(prompts)
        durations.append(decode + (fixed + token * tokens if tokens else 0))
        pacer.observe(durations[-1], num_decodes=8, num_prompts=prompts, num_prompt_tokens=tokens)
    return durations


def _settled(*, decode: float, fixed: float = 0.0, token: float, prompts: int = 1) -> PrefillPacer:
    pacer = PrefillPacer()
    pacer.observe(decode, num_decodes=8, num_prompts=1, num_prompt_tokens=0)
    durations = _run(pacer, decode=decode, fixed=fixed, token=token, prompts=prompts)
    assert durations.count(decode) == pytest.approx(200 / (MEASURE_EVERY + 1), abs=1)
    return pacer


@pytest.mark.parametrize("token", [0.0002, 0.001, 0.002])
@pytest.mark.parametrize(("prompts", "share"), [(1, 1.0), (2, 1.5), (4, 2.5), (5, 3.0), (50, 4.0)])
def test_a_step_with_a_chunk_takes_as_long_as_it_may(token: float, prompts: int, share: float) -> None:
    pacer = _settled(decode=0.06, token=token, prompts=prompts)
    assert share_of(prompts) == share
    assert token * pacer.num_tokens(prompts) == pytest.approx(0.06 * share, rel=0.05)


def test_where_tokens_are_dear_a_prompt_still_moves_on() -> None:
    assert _settled(decode=0.06, token=0.1).num_tokens(1) == LEAST_TOKENS


def test_where_steps_are_short_chunks_may_stretch_them_further() -> None:
    """As on a GPU: a chunk costs a fixed time, and hardly more when it is large."""
    pacer = _settled(decode=0.005, fixed=0.01, token=0.00001)
    assert 0.005 + 0.01 + 0.00001 * pacer.num_tokens(1) == pytest.approx(NO_STALL_SECONDS, rel=0.05)


def test_a_chunk_smaller_than_allowed_teaches_nothing() -> None:
    pacer = PrefillPacer()
    pacer.observe(0.1, num_decodes=1, num_prompts=1, num_prompt_tokens=0)
    pacer.observe(0.101, num_decodes=1, num_prompts=1, num_prompt_tokens=3)
    assert pacer.num_tokens(1) == FIRST_TOKENS


def test_a_step_held_up_by_the_machine_is_forgotten() -> None:
    pacer = _settled(decode=0.06, token=0.001)
    usual = pacer.num_tokens(1)
    pacer.observe(5.0, num_decodes=8, num_prompts=1, num_prompt_tokens=usual)
    assert pacer.num_tokens(1) == usual // 2
    pacer.observe(5.0, num_decodes=8, num_prompts=1, num_prompt_tokens=0)
    assert pacer.num_tokens(1) == usual // 2
    _run(pacer, decode=0.06, token=0.001)
    assert pacer.num_tokens(1) == pytest.approx(usual, rel=0.1)


def test_steps_of_prompts_alone_teach_nothing() -> None:
    pacer = PrefillPacer()
    pacer.observe(1.0, num_decodes=0, num_prompts=1, num_prompt_tokens=512)
    pacer.observe(1.0, num_decodes=3, num_prompts=1, num_prompt_tokens=64)
    assert pacer.num_tokens(1) == FIRST_TOKENS
