"""What a server's settings are and where each came from, and which of them are unsafe. Reads no key, starts nothing."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from stat import S_IROTH
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from server.config import ENV_PREFIX, Settings, flag_of

MIN_KEY_CHARS = 16
"""A key that is shorter may be guessed."""

_WITHOUT_VALUE = {
    "max_model_len": "the model's context, at most 4096",
    "kv_cache_memory": "by the memory that is free",
    "requests_per_minute": "no limit",
    "tokens_per_minute": "no limit",
}


@dataclass(frozen=True, slots=True)
class ToldSetting:
    """One setting as an operator may see it."""

    name: str
    value: str
    source: str


def told_settings(settings: Settings, flags: Collection[str]) -> list[ToldSetting]:
    """Every setting with its value, keys only by how many there are; `flags` are the fields that flags have set."""
    return [
        ToldSetting(name, _told(name, getattr(settings, name)), _source(settings, name, flags))
        for name in Settings.model_fields
    ]


def unsafe_settings(settings: Settings) -> list[str]:
    """What an operator should know of, one sentence for each unsafe setting."""
    return [*_who_may_ask(settings), *_weak_keys(settings), *_what_may_be_read(settings)]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; of a name other than localhost nothing is known."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _source(settings: Settings, name: str, flags: Collection[str]) -> str:
    if name not in settings.model_fields_set:
        return "default"
    return flag_of(name) if name in flags else f"{ENV_PREFIX}{name.upper()}"


def _told(name: str, value: Any) -> str:
    if isinstance(value, tuple):
        if any(isinstance(item, SecretStr) for item in value):
            return f"{len(value)} set"
        return ", ".join(map(str, value)) or "none"
    if value is None:
        return _WITHOUT_VALUE.get(name, "none")
    if name in ("kv_cache_memory", "adapter_memory", "max_adapter_size"):
        return f"{value / (1 << 20):g} MiB"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _who_may_ask(settings: Settings) -> Iterator[str]:
    has_chat_keys = bool(settings.api_keys or settings.key_file)
    is_open = not has_chat_keys and not settings.admin_keys
    where = f"--host {settings.host}"
    if not is_loopback(settings.host):
        if is_open:
            yield (
                f"{where}: without any key, whoever reaches this address may chat and change adapters; "
                f"set {ENV_PREFIX}API_KEYS and {ENV_PREFIX}ADMIN_KEYS"
            )
        elif not has_chat_keys:
            yield f"{where}: whoever reaches this address may chat; set {ENV_PREFIX}API_KEYS or --key-file"
    if settings.cors_origins and is_open:
        yield (
            "--cors-origins: without any key, pages of these origins may change adapters through any visitor's "
            f"browser; set {ENV_PREFIX}ADMIN_KEYS"
        )
    for origin in settings.cors_origins:
        if origin.startswith("http://") and not is_loopback(urlsplit(origin).hostname or ""):
            yield f"--cors-origins {origin}: its pages come unencrypted, so whoever is on the way can use their keys"


def _weak_keys(settings: Settings) -> Iterator[str]:
    for field in ("api_keys", "admin_keys"):
        keys: tuple[SecretStr, ...] = getattr(settings, field)
        for number, key in enumerate(keys, start=1):
            if len(key.get_secret_value()) < MIN_KEY_CHARS:
                yield f"{ENV_PREFIX}{field.upper()}: key {number} is shorter than {MIN_KEY_CHARS} characters"
    if settings.key_file is not None and settings.key_file.exists() and settings.key_file.stat().st_mode & S_IROTH:
        yield f"--key-file {settings.key_file}: every user of this machine may read it; chmod 600"


def _what_may_be_read(settings: Settings) -> Iterator[str]:
    wide = {Path("/"), Path.home().resolve(), *Path.home().resolve().parents}
    for root in settings.adapter_roots:
        if root.resolve() in wide:
            yield f"--adapter-roots {root}: whoever may change adapters may have read whatever lies there"
    for source in settings.adapter_sources:
        if source.rstrip("/") == "hf:":
            yield f"--adapter-sources {source}: whoever may change adapters may fetch any repository of the hub"
    if settings.on_probe_mismatch == "keep":
        yield "--on-probe-mismatch keep: adapters that do not answer as where they were made are served"
