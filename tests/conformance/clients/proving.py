"""What the client programs share: where they ask, and how they say what they proved. Knows no client package."""

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

Failure = TypeVar("Failure", bound=Exception)

KEY = "conformance-key"
"""The chat key of the narrow server; the open one knows no keys."""

LIMITED_KEY = "limited-conformance-key"
"""Another one there, which may ask REQUESTS_PER_MINUTE."""

REQUESTS_PER_MINUTE = 20

QUESTION = "Is this film review positive or negative?\nA warm and funny film."
"""Both the base model and the example adapter have an answer to it."""

HOG = {"ignore_eos": True}
"""Beside HOG_TOKENS: an answer that does not end by itself, so that its request runs until it is hung up."""

HOG_TOKENS = 3000


@dataclass(frozen=True)
class Place:
    """Where to ask: the base URL, with /v1, and the name of a model."""

    url: str
    model: str


def place() -> Place:
    """What the command line says."""
    _, url, model = sys.argv
    return Place(url=f"{url}/v1", model=model)


def proved(feature: str) -> None:
    """Say that a feature was seen to work, once all that belongs to it was asserted."""
    sys.stdout.write(f"{feature}\n")
    sys.stdout.flush()


def failure(kind: type[Failure], ask: Callable[[], object]) -> Failure:
    """The exception of this kind that a call must raise."""
    try:
        answer = ask()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}, but {answer!r}")


async def failure_of(kind: type[Failure], asking: Awaitable[object]) -> Failure:
    """The same of a coroutine."""
    try:
        answer = await asking
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}, but {answer!r}")
