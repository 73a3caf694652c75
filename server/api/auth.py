"""KeyRing: which API keys are good for what. Knows no routes."""

import hashlib
import hmac
from collections.abc import Iterable

from server.errors import AdminKeyRequired, ApiKeyInvalid


class KeyRing:
    """Keys as sha256 digests, compared in constant time.

    Without any key all is open; without keys for chat, chat is open; without an admin key but with chat keys, nobody
    changes adapters.
    """

    def __init__(self, *, api_keys: Iterable[str], admin_keys: Iterable[str]) -> None:
        self._admin = [_digest(key) for key in admin_keys]
        self._api = [_digest(key) for key in api_keys]

    def check_chat(self, authorization: str | None) -> None:
        """Raise ApiKeyInvalid unless the header's key may chat."""
        if self._api and not self._holds(self._api + self._admin, authorization):
            raise _invalid(authorization)

    def check_admin(self, authorization: str | None) -> None:
        """Raise ApiKeyInvalid or AdminKeyRequired unless the header's key may change adapters."""
        if not (self._api or self._admin) or self._holds(self._admin, authorization):
            return
        if self._holds(self._api, authorization):
            raise AdminKeyRequired("changing adapters needs an admin key (HOTPROMPT_ADMIN_KEYS)")
        raise _invalid(authorization)

    def tenant_salt(self, authorization: str | None) -> bytes:
        """The digest of the header's key; nothing for all who send none that is known here, who are one tenant."""
        return _sent_digest(authorization) if self._holds(self._api + self._admin, authorization) else b""

    def _holds(self, digests: list[bytes], authorization: str | None) -> bool:
        digest = _sent_digest(authorization)
        # Every digest is compared, so that the time tells nothing about which one matched.
        matches = [hmac.compare_digest(digest, known) for known in digests]
        return _is_bearer(authorization) and any(matches)


def _is_bearer(authorization: str | None) -> bool:
    return (authorization or "").partition(" ")[0].lower() == "bearer"


def _sent_digest(authorization: str | None) -> bytes:
    return _digest((authorization or "").partition(" ")[2].strip())


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", errors="surrogateescape")).digest()


def _invalid(authorization: str | None) -> ApiKeyInvalid:
    if not authorization:
        return ApiKeyInvalid("an API key is needed: send the header 'Authorization: Bearer KEY'")
    return ApiKeyInvalid("this API key is not known here")
