"""What a store knows of a name: its versions and which one is current, or what an alias stands for. Knows no files."""

import hashlib
import json
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from adapters.errors import AdapterNameInvalid, AdapterNotFound, CanaryInvalid, StoreFailure
from adapters.naming import DIGEST_PATTERN, AdapterReference, check_name
from adapters.verification import Verification

Digest = Annotated[str, Field(pattern=f"^{DIGEST_PATTERN.pattern}$")]


def _legal_name(text: str) -> str:
    try:
        return check_name(text)
    except AdapterNameInvalid as error:
        raise ValueError(str(error)) from None


def _legal_reference(text: str) -> str:
    try:
        AdapterReference.parse(text)
    except AdapterNameInvalid as error:
        raise ValueError(str(error)) from None
    return text


MAX_SOURCE_CHARS = 8192


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Version(_Entry):
    """One published version of a name; `created` is in seconds since the epoch.

    `verification` is what the version's probes said when a server replayed them last; None where none has. `source`
    is where exactly the server that published it had fetched it from, as its administrator may know it.
    """

    digest: Digest
    created: int
    verification: Verification | None = None
    source: Annotated[str, Field(max_length=MAX_SOURCE_CHARS)] | None = Field(
        default=None, exclude_if=lambda source: source is None
    )


class Canary(_Entry):
    """A version that answers `percent` of a name's askers in place of the current one."""

    digest: Digest
    percent: int = Field(ge=1, le=99)


class NameRecord(_Entry):
    """A name, its versions in the order they were published; `current` is the digest that the name stands for."""

    name: Annotated[str, AfterValidator(_legal_name)]
    current: Digest
    versions: tuple[Version, ...] = Field(min_length=1)
    pinned: bool = False
    canary: Canary | None = Field(default=None, exclude_if=lambda canary: canary is None)
    """Left out of a record without one, which is then as it was before there were canaries."""

    @model_validator(mode="after")
    def _current_is_a_version(self) -> Self:
        digests = {version.digest for version in self.versions}
        if self.current not in digests:
            raise ValueError("current is none of the versions")
        if self.canary is not None and (self.canary.digest == self.current or self.canary.digest not in digests):
            raise ValueError("the canary is none of the other versions")
        return self

    @property
    def created(self) -> int:
        """When the current version was published."""
        return self.version(self.current).created

    def version(self, digest: str) -> Version:
        """The version of a digest that is one of the record's."""
        return next(version for version in self.versions if version.digest == digest)

    def with_verification(self, digest: str, verification: Verification) -> "NameRecord":
        """The record after a version's probes were replayed. Raises AdapterNotFound when it is not there any more."""
        self.digest_of(digest)
        versions = tuple(
            version.model_copy(update={"verification": verification}) if version.digest == digest else version
            for version in self.versions
        )
        return self.model_copy(update={"versions": versions})

    def digest_of(self, digest_prefix: str) -> str:
        """The whole digest of the only version that begins so. Raises AdapterNotFound."""
        found = [version.digest for version in self.versions if version.digest.startswith(digest_prefix)]
        if len(found) != 1:
            problem = "no version" if not found else "more than one version"
            raise AdapterNotFound(f"adapter {self.name!r} has {problem} {digest_prefix!r}")
        return found[0]

    def digest_for(self, asker: str | None) -> str:
        """The digest that answers one asker, always the same while the record is; without an asker, the current one.

        Whoever a canary answers, it still answers after its percentage has grown.
        """
        if self.canary is None or asker is None:
            return self.current
        drawn = hashlib.sha256(f"{self.name}\0{asker}".encode(errors="surrogatepass")).digest()
        return self.canary.digest if int.from_bytes(drawn[:8]) % 100 < self.canary.percent else self.current

    def with_version(self, published: Version) -> "NameRecord":
        """The record after a version was published: it is the newest and the current one, and in the list once.

        That ends a canary.
        """
        if published.digest == self.current:
            verification = published.verification
            record = self if verification is None else self.with_verification(self.current, verification)
            return record.without_canary()
        earlier = tuple(version for version in self.versions if version.digest != published.digest)
        versions = (*earlier, published)
        return self.model_copy(update={"current": published.digest, "versions": versions, "canary": None})

    def rolled_back(self, digest_prefix: str | None) -> "NameRecord":
        """The record standing for the version named, or for the one published before the current one; without a canary.

        Raises AdapterNotFound when there is no such version.
        """
        if digest_prefix is not None:
            return self.model_copy(update={"current": self.digest_of(digest_prefix), "canary": None})
        digests = [version.digest for version in self.versions]
        position = digests.index(self.current)
        if position == 0:
            raise AdapterNotFound(f"adapter {self.name!r} has no version before {self.current[:12]}")
        return self.model_copy(update={"current": digests[position - 1], "canary": None})

    def with_canary(self, digest_prefix: str, percent: int) -> "NameRecord":
        """The record after `percent` of the askers, 1 to 99, were given another version.

        Raises AdapterNotFound when there is no such version, CanaryInvalid for the current one.
        """
        if not 1 <= percent <= 99:
            raise CanaryInvalid(f"percent is {percent}; a canary has 1 to 99 (roll back to a version to give it all)")
        digest = self.digest_of(digest_prefix)
        if digest == self.current:
            raise CanaryInvalid(f"{self.name!r} stands for {digest[:12]} already; a canary is another version")
        return self.model_copy(update={"canary": Canary(digest=digest, percent=percent)})

    def without_canary(self) -> "NameRecord":
        """The record whose current version answers everybody."""
        return self.model_copy(update={"canary": None})


class AliasRecord(_Entry):
    """Another name for `target`, a name or `name@digest`."""

    name: Annotated[str, AfterValidator(_legal_name)]
    target: Annotated[str, AfterValidator(_legal_reference)]

    @property
    def reference(self) -> AdapterReference:
        """The target, parsed."""
        return AdapterReference.parse(self.target)


class _RecordFile(_Entry):
    record: NameRecord | AliasRecord


def record_to_json(record: NameRecord | AliasRecord) -> bytes:
    """The bytes of a record's file."""
    return _RecordFile(record=record).model_dump_json(indent=2).encode() + b"\n"


def record_from_json(name: str, content: bytes) -> NameRecord | AliasRecord:
    """Read the file of `name`. Raises StoreFailure when it is damaged or is another name's."""
    try:
        record = _RecordFile.model_validate(json.loads(content)).record
    except (ValueError, RecursionError, ValidationError):
        raise StoreFailure(
            f"the record of {name!r} is damaged; remove the name, then publish the adapter again"
        ) from None
    if record.name != name:
        raise StoreFailure(f"the record of {name!r} is that of {record.name!r}")
    return record
