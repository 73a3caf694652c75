"""Keys: who may ask, for which models and how often; read from the settings and the key file. Knows no HTTP."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from server.config import MAX_REQUESTS_PER_MINUTE, MAX_TOKENS_PER_MINUTE, Settings, SettingsError

MAX_KEYS = 1000
MAX_KEY_FILE_BYTES = 1 << 20


class Role(Enum):
    """What a key is good for."""

    ANYONE = "anyone"
    CHAT = "chat"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks: the holder of one key, or anyone without one. `name` is safe to show; the key is not in here."""

    name: str
    role: Role
    digest: bytes
    """sha256 of the key; empty for anyone."""
    models: frozenset[str] | None = None
    """Names and aliases that may be used, as they are written; None for all."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Prompt and answer together. None: no limit."""

    def may_use(self, name: str) -> bool:
        """Whether this caller may know of a name: the base model's, an adapter's or an alias."""
        return self.models is None or name in self.models


@dataclass(frozen=True, slots=True)
class Callers:
    """Everyone who may come: each key's holder, and who comes without a known key."""

    known: tuple[Caller, ...]
    anyone: Caller

    def __iter__(self) -> Iterator[Caller]:
        return iter((*self.known, self.anyone))


def digest_of(key: str) -> bytes:
    """What a key is known by."""
    return hashlib.sha256(key.encode("utf-8", errors="surrogateescape")).digest()


ModelName = Annotated[str, Field(min_length=1, max_length=255)]


class KeyEntry(BaseModel):
    """One key of the key file, by itself or by its sha256 in hexadecimal digits."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    name: str = Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    key: SecretStr | None = Field(default=None, min_length=8, max_length=512)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    models: list[ModelName] | None = Field(default=None, max_length=10_000)
    requests_per_minute: int | None = Field(default=None, ge=1, le=MAX_REQUESTS_PER_MINUTE)
    tokens_per_minute: int | None = Field(default=None, ge=1, le=MAX_TOKENS_PER_MINUTE)

    @model_validator(mode="after")
    def _is_one_key(self) -> Self:
        if (self.key is None) == (self.sha256 is None):
            raise PydanticCustomError("key", "give either key or sha256")
        return self

    @property
    def digest(self) -> bytes:
        return digest_of(self.key.get_secret_value()) if self.key is not None else bytes.fromhex(self.sha256 or "")


class KeyFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    keys: list[KeyEntry] = Field(min_length=1, max_length=MAX_KEYS)


def read_callers(settings: Settings) -> Callers:
    """Everyone that the settings and their key file name. Raises SettingsError, which tells no key."""
    known = [
        *_from_environment(settings),
        *(_from_entry(entry, settings) for entry in _read_key_file(settings.key_file)),
    ]
    _refuse_twins(known)
    anyone = Caller(
        name="anyone",
        role=Role.ANYONE,
        digest=b"",
        requests_per_minute=settings.requests_per_minute,
        tokens_per_minute=settings.tokens_per_minute,
    )
    return Callers(tuple(known), anyone)


def _from_environment(settings: Settings) -> Iterator[Caller]:
    for number, key in enumerate(settings.api_keys, start=1):
        yield Caller(
            name=f"HOTPROMPT_API_KEYS[{number}]",
            role=Role.CHAT,
            digest=digest_of(key.get_secret_value()),
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
        )
    for number, key in enumerate(settings.admin_keys, start=1):
        yield Caller(name=f"HOTPROMPT_ADMIN_KEYS[{number}]", role=Role.ADMIN, digest=digest_of(key.get_secret_value()))


def _from_entry(entry: KeyEntry, settings: Settings) -> Caller:
    return Caller(
        name=entry.name,
        role=Role.CHAT,
        digest=entry.digest,
        models=None if entry.models is None else frozenset(entry.models),
        requests_per_minute=entry.requests_per_minute or settings.requests_per_minute,
        tokens_per_minute=entry.tokens_per_minute or settings.tokens_per_minute,
    )


def _read_key_file(path: Path | None) -> list[KeyEntry]:
    if path is None:
        return []
    where = f"--key-file {path}"
    try:
        with path.open("rb") as file:
            content = file.read(MAX_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{where}: {error.strerror}") from error
    if len(content) > MAX_KEY_FILE_BYTES:
        raise SettingsError(f"{where}: it is over the limit of {MAX_KEY_FILE_BYTES} bytes")
    try:
        parsed: Any = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f" (line {mark.line + 1})"
        raise SettingsError(f"{where}: it is not valid YAML{line}") from None  # the error's text may show a key
    try:
        return KeyFile.model_validate(parsed).keys
    except ValidationError as error:
        lines = [
            f"{where}: {'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg'].removeprefix('Input ')}"
            for problem in error.errors(include_input=False)
        ]
        raise SettingsError("\n".join(lines)) from None


def _refuse_twins(callers: Iterable[Caller]) -> None:
    """Each name and each key is one caller's."""
    names: set[str] = set()
    owners: dict[bytes, str] = {}
    for caller in callers:
        if caller.name in names:
            raise SettingsError(f"--key-file: two keys are named {caller.name}")
        if caller.digest in owners:
            raise SettingsError(f"{caller.name} and {owners[caller.digest]} are the same key; give it once")
        names.add(caller.name)
        owners[caller.digest] = caller.name
