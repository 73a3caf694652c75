"""Legal adapter names, content digests, and references to them (`name`, `name@digest`). Knows no files."""

import re
from dataclasses import dataclass

from adapters.errors import AdapterNameInvalid

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}")
DIGEST_PREFIX_PATTERN = re.compile(r"[0-9a-f]{6,64}")
NAME_RULE = "1 to 63 of A-Z a-z 0-9 . _ -, beginning with a letter or digit"


def check_name(name: str, *, base_name: str | None = None) -> str:
    """Return `name` if it may name an adapter.

    Raises AdapterNameInvalid for an illegal name, and for the name of the base model.
    """
    if NAME_PATTERN.fullmatch(name) is None:
        raise AdapterNameInvalid(f"name: {name[:80]!r} is not a legal adapter name ({NAME_RULE})")
    if name == base_name:
        raise AdapterNameInvalid(f"name: {name!r} is the base model's own name")
    return name


@dataclass(frozen=True, slots=True)
class AdapterReference:
    """What a request calls an adapter by: a name, or one version of it."""

    name: str
    digest_prefix: str | None = None

    def __str__(self) -> str:
        return self.name if self.digest_prefix is None else f"{self.name}@{self.digest_prefix}"

    @classmethod
    def parse(cls, text: str) -> "AdapterReference":
        """Read `name` or `name@digest-prefix` (at least 6 hex digits).

        Raises AdapterNameInvalid when either part is not legal.
        """
        name, at, prefix = text.partition("@")
        check_name(name)
        if not at:
            return cls(name)
        if DIGEST_PREFIX_PATTERN.fullmatch(prefix) is None:
            raise AdapterNameInvalid(f"name: {prefix[:80]!r} after '@' is not 6 to 64 hex digits of a digest")
        return cls(name, prefix)
