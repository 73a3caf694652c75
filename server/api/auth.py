"""KeyRing: which API keys are good for what. Knows no routes."""

import hmac

from server.errors import AdminKeyRequired, ApiKeyInvalid
from server.keys import Caller, Callers, Role, digest_of


class KeyRing:
    """Keys as sha256 digests, compared in constant time.

    Without any key all is open; without keys for chat, chat is open; without an admin key but with chat keys, nobody
    changes adapters.
    """

    def __init__(self, callers: Callers) -> None:
        self._callers = callers
        roles = {caller.role for caller in callers.known}
        self.is_chat_open = Role.CHAT not in roles
        self.is_all_open = not roles

    def caller(self, authorization: str | None) -> Caller:
        """Whose key the header has; all who send none that is known here are one caller."""
        digest = digest_of(_sent_key(authorization))
        # Every digest is compared, so that the time tells nothing about which one matched.
        matches = [caller for caller in self._callers.known if hmac.compare_digest(digest, caller.digest)]
        return matches[0] if matches and _is_bearer(authorization) else self._callers.anyone

    def check_chat(self, caller: Caller, authorization: str | None) -> None:
        """Raise ApiKeyInvalid, worded for the header, unless the caller that it names may chat."""
        if not self.is_chat_open and caller.role is Role.ANYONE:
            raise _invalid(authorization)

    def may_change(self, caller: Caller) -> bool:
        """Whether a caller may change adapters."""
        return self.is_all_open or caller.role is Role.ADMIN

    def check_admin(self, caller: Caller, authorization: str | None) -> None:
        """Raise ApiKeyInvalid, worded for the header, or AdminKeyRequired unless its caller may change adapters."""
        if self.may_change(caller):
            return
        if caller.role is Role.CHAT:
            raise AdminKeyRequired("changing adapters needs an admin key (HOTPROMPT_ADMIN_KEYS)")
        raise _invalid(authorization)


def _is_bearer(authorization: str | None) -> bool:
    return (authorization or "").partition(" ")[0].lower() == "bearer"


def _sent_key(authorization: str | None) -> str:
    return (authorization or "").partition(" ")[2].strip()


def _invalid(authorization: str | None) -> ApiKeyInvalid:
    if not authorization:
        return ApiKeyInvalid("an API key is needed: send the header 'Authorization: Bearer KEY'")
    return ApiKeyInvalid("this API key is not known here")
