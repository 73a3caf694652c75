"""Limits of a minute: counted, refilled and told, on a clock that the test moves."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.limits import Allowance, RateLimits, duration
from server.errors import RateLimited, RequestsLimited, TokensLimited
from server.keys import Caller, Role


class StandingClock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


CALLER = Caller(name="team", role=Role.CHAT, digest=b"digest", requests_per_minute=6, tokens_per_minute=600)


def test_requests_are_counted_and_come_back_evenly() -> None:
    clock = StandingClock()
    account = RateLimits([CALLER], clock=clock).account(CALLER)
    for _ in range(6):
        account.enter()
    with pytest.raises(RequestsLimited, match="6 requests a minute") as caught:
        account.enter()
    assert caught.value.retry_after == pytest.approx(10)
    clock.now += 10
    account.enter()
    with pytest.raises(RequestsLimited):
        account.enter()
    clock.now += 3600
    for _ in range(6):
        account.enter()
    with pytest.raises(RequestsLimited):
        account.enter()


def test_tokens_are_charged_afterwards_and_a_debt_is_waited_for() -> None:
    clock = StandingClock()
    limits = RateLimits([CALLER], clock=clock)
    account = limits.account(CALLER)
    account.enter()
    limits.charge(CALLER.digest, 1199)  # more than there was: the answer has been given
    with pytest.raises(TokensLimited, match="600 tokens a minute") as caught:
        account.enter()
    assert caught.value.retry_after == pytest.approx(60)
    headers = account.headers()
    assert headers["x-ratelimit-remaining-tokens"] == "0"
    assert headers["x-ratelimit-remaining-requests"] == "5"  # a refused request is not counted
    clock.now += caught.value.retry_after
    account.enter()


def test_headers_tell_only_of_limits_that_there_are() -> None:
    clock = StandingClock()
    free = dataclasses.replace(CALLER, digest=b"", tokens_per_minute=None, requests_per_minute=None)
    limits = RateLimits([CALLER, free], clock=clock)
    limits.account(CALLER).enter()
    limits.charge(CALLER.digest, 100)
    limits.charge(free.digest, 10**9)
    limits.account(free).enter()
    assert limits.account(free).headers() == {}
    assert limits.account(CALLER).headers() == {
        "x-ratelimit-limit-requests": "6",
        "x-ratelimit-remaining-requests": "5",
        "x-ratelimit-reset-requests": "10s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "500",
        "x-ratelimit-reset-tokens": "10s",
    }


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 120, allow_subnormal=False), st.integers(0, 50)), max_size=50),
)
def test_no_more_is_ever_taken_than_a_minute_s_worth_and_what_was_refilled(
    per_minute: int, steps: list[tuple[float, int]]
) -> None:
    now, taken = 0.0, 0
    allowance = Allowance(per_minute, now)
    for pause, amount in steps:
        now += pause
        if allowance.seconds_until(amount, now) == 0 and amount <= per_minute:
            allowance.take(amount, now)
            taken += amount
        assert taken <= per_minute + now * per_minute / 60 + 1e-6
        assert -1e-6 <= allowance.left(now) <= per_minute


def test_waiting_as_long_as_told_is_enough() -> None:
    clock = StandingClock()
    account = RateLimits([CALLER], clock=clock).account(CALLER)
    for _ in range(200):
        try:
            account.enter()
        except RateLimited as error:
            clock.now += error.retry_after + 1e-9
            account.enter()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0ms"), (0.0171, "18ms"), (1, "1s"), (7.66, "7.66s"), (60, "1m0s"), (90, "1m30s")]
)
def test_durations_are_openai_s(seconds: float, text: str) -> None:
    assert duration(seconds) == text
