"""RateLimits: how many requests and tokens a minute each caller has left. Knows no route and no key.

It belongs to the event loop's thread: nothing in here waits or locks.
"""

import math
import time
from collections.abc import Callable, Iterable

from server.errors import RequestsLimited, TokensLimited
from server.keys import Caller

SECONDS_PER_MINUTE = 60

Clock = Callable[[], float]


class Allowance:
    """So much a minute, refilled evenly up to one minute's worth, and full at the start. It may be overdrawn."""

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._amount = float(per_minute)
        self._at = now  # when _amount was true

    def left(self, now: float) -> float:
        """What there is; below zero when more was taken than there was."""
        refilled = self._amount + max(now - self._at, 0) * self.per_minute / SECONDS_PER_MINUTE
        return min(refilled, self.per_minute)

    def take(self, amount: int, now: float) -> None:
        """Take it, whether it is there or not."""
        self._amount = self.left(now) - amount
        self._at = now

    def seconds_until(self, amount: int, now: float) -> float:
        """How long until so much is there."""
        return max(amount - self.left(now), 0) * SECONDS_PER_MINUTE / self.per_minute


class Account:
    """What one caller has left."""

    def __init__(self, caller: Caller, clock: Clock) -> None:
        self._clock = clock
        self._requests = _allowance(caller.requests_per_minute, clock)
        self._tokens = _allowance(caller.tokens_per_minute, clock)

    def enter(self) -> None:
        """Count one request. Raises RequestsLimited or TokensLimited, and then counts nothing."""
        now = self._clock()
        if self._requests is not None and (seconds := self._requests.seconds_until(1, now)) > 0:
            raise RequestsLimited(
                f"the limit of this key is {self._requests.per_minute} requests a minute", retry_after=seconds
            )
        if self._tokens is not None and (seconds := self._tokens.seconds_until(1, now)) > 0:
            raise TokensLimited(
                f"the limit of this key is {self._tokens.per_minute} tokens a minute, prompts and answers together",
                retry_after=seconds,
            )
        if self._requests is not None:
            self._requests.take(1, now)

    def charge(self, num_tokens: int) -> None:
        """Count the tokens of a prompt and its answer, made or begun; what is over the limit delays what comes next."""
        if self._tokens is not None:
            self._tokens.take(num_tokens, self._clock())

    def headers(self) -> dict[str, str]:
        """OpenAI's headers for the limits that there are."""
        now = self._clock()
        headers: dict[str, str] = {}
        for unit, allowance in (("requests", self._requests), ("tokens", self._tokens)):
            if allowance is not None:
                headers[f"x-ratelimit-limit-{unit}"] = str(allowance.per_minute)
                headers[f"x-ratelimit-remaining-{unit}"] = str(max(math.floor(allowance.left(now)), 0))
                headers[f"x-ratelimit-reset-{unit}"] = duration(allowance.seconds_until(allowance.per_minute, now))
        return headers


class RateLimits:
    """One account for each caller that is known, so that memory does not grow with what is sent."""

    def __init__(self, callers: Iterable[Caller], *, clock: Clock = time.monotonic) -> None:
        self._accounts = {caller.digest: Account(caller, clock) for caller in callers}

    def account(self, caller: Caller) -> Account:
        """What a caller has left."""
        return self._accounts[caller.digest]

    def charge(self, tenant_salt: bytes, num_tokens: int) -> None:
        """Count tokens of the caller whose salt a request carries: prompt and answer, once, when it has ended."""
        self._accounts[tenant_salt].charge(num_tokens)


def duration(seconds: float) -> str:
    """Seconds in the form of OpenAI's headers: `450ms`, `7.66s`, `1m30s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds * 100) / 100, SECONDS_PER_MINUTE)
    return f"{minutes:.0f}m{rest:.0f}s" if minutes else f"{rest:g}s"


def _allowance(per_minute: int | None, clock: Clock) -> Allowance | None:
    return None if per_minute is None else Allowance(per_minute, clock())
