"""What the engine's thread is told through its queue. Knows no queue and no engine."""

from collections.abc import Sequence as Tokens
from dataclasses import dataclass

from adapters.injections import Injection
from server.engine.constraint import TokenConstraint
from server.engine.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request is, without its number."""

    prompt_ids: Tokens[int]
    params: SamplingParams | None
    injection: Injection | None
    tenant_salt: bytes = b""
    is_pinned: bool = False
    constraint: TokenConstraint | None = None
    is_pooled: bool = False


@dataclass(frozen=True, slots=True)
class Add:
    """Queue a request."""

    request_id: int
    ask: Ask


@dataclass(frozen=True, slots=True)
class Abort:
    """Take a request out of the batch."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Unpin:
    """Let the KV of these soft prompts leave the cache."""

    digests: frozenset[str]


@dataclass(frozen=True, slots=True)
class Stop:
    """End the thread."""
