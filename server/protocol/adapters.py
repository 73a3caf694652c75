"""Adapters on the wire; the form is our own. Knows no route."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from adapters.naming import DIGEST_PREFIX_PATTERN
from adapters.verification import EngineNumbers, VerificationState
from server.protocol.base import RequestBody, ResponseBody


class AdapterVersion(ResponseBody):
    digest: str
    created: int
    running: int
    """Requests that are being answered by this version now."""
    source: str | None
    """Where exactly the server had fetched it from; null for an upload, and for a key that may not change adapters."""


class AdapterUsage(ResponseBody):
    """Since this server first used the adapter; an adapter's virtual tokens are in no count."""

    requests: int
    prompt_tokens: int
    completion_tokens: int


class AdapterCanary(ResponseBody):
    """The version that answers `percent` of a name's askers; the current one answers the others."""

    digest: str
    percent: int


class AdapterVerification(ResponseBody):
    """What the version's probes said when a server replayed them last, `checked` in seconds since the epoch.

    `probe` is the first that is wrong, from 0; `largest_difference` is in nats a token.
    """

    state: VerificationState
    engine: EngineNumbers | None
    checked: int | None
    num_probes: int
    num_replayed: int
    num_equal: int
    largest_difference: float | None
    probe: int | None
    detail: str


class AdapterRecord(ResponseBody):
    """One adapter as it is served now; sizes in bytes, times in seconds since the epoch."""

    id: str
    object: Literal["adapter"] = "adapter"
    digest: str
    created: int
    versions: list[AdapterVersion]
    canary: AdapterCanary | None
    aliases: list[str]
    pinned: bool
    resident: bool
    kind: str
    num_virtual_tokens: int
    hidden_size: int | None
    """Width of a soft prompt's rows; null for adapters of other kinds."""
    size: int
    base: str | None
    training: dict[str, Any] | None
    running: int
    """Requests that are being answered now, by any of the versions."""
    usage: AdapterUsage
    verification: AdapterVerification


class DamagedAdapter(ResponseBody):
    """A name that is not served, and what to do about it."""

    id: str
    problem: str


class AdapterList(ResponseBody):
    object: Literal["list"] = "list"
    data: list[AdapterRecord]
    damaged: list[DamagedAdapter]


class DeletedAdapter(ResponseBody):
    id: str
    object: Literal["adapter"] = "adapter"
    deleted: Literal[True] = True
    running: int
    """Requests that still run, and finish on the version they began with; its memory is free after them."""
    was_pinned: bool


def _as_rollback(value: object) -> object:
    if value is None or value is True or (isinstance(value, str) and DIGEST_PREFIX_PATTERN.fullmatch(value)):
        return value
    raise PydanticCustomError("rollback", "should be true, or 6 to 64 hex digits of a version's digest")


RollbackDigest = Annotated[str, Field(max_length=64, pattern=f"^{DIGEST_PREFIX_PATTERN.pattern}$")]


class CanaryChange(RequestBody):
    """So many percent of the askers for another version."""

    digest: RollbackDigest
    percent: int = Field(ge=1, le=99)


class AdapterChange(RequestBody):
    """Body of PATCH: at least one change. If one is refused, none is made."""

    rollback: Annotated[
        Literal[True] | RollbackDigest | None,
        BeforeValidator(_as_rollback, json_schema_input_type=Literal[True] | RollbackDigest | None),
    ] = None
    """true: the version before the current one; otherwise the digest or a prefix of it."""
    pinned: bool | None = None
    alias: str | None = Field(default=None, min_length=1, max_length=63)
    """One more name for this adapter."""
    canary: CanaryChange | None = None
    """A version that answers a part of the askers; null, where it is given, ends that."""

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.rollback is None and self.pinned is None and self.alias is None and not self.sets_canary:
            raise PydanticCustomError("change", "give at least one of rollback, pinned, alias, canary")
        return self

    @property
    def sets_canary(self) -> bool:
        """Whether a canary is begun or, by null, ended."""
        return "canary" in self.model_fields_set
