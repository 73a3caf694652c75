"""KeyRing: which key is good for what, for each way of setting keys."""

import pytest

from server.api.auth import KeyRing
from server.errors import AdminKeyRequired, ApiKeyInvalid

OPEN, CHAT_ONLY = KeyRing(api_keys=(), admin_keys=()), KeyRing(api_keys=("chat",), admin_keys=())
ADMIN_ONLY, BOTH = KeyRing(api_keys=(), admin_keys=("admin",)), KeyRing(api_keys=("chat", "é"), admin_keys=("admin",))


@pytest.mark.parametrize(
    ("keys", "header"),
    [
        (OPEN, None),
        (OPEN, "Bearer anything"),
        (ADMIN_ONLY, None),
        (CHAT_ONLY, "Bearer chat"),
        (BOTH, "bearer chat"),
        (BOTH, "Bearer é"),
        (BOTH, "Bearer admin"),
    ],
)
def test_who_may_chat(keys: KeyRing, header: str | None) -> None:
    keys.check_chat(header)


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer nobody", "Basic chat", "chat", "Bearer chat chat"]
)
def test_who_may_not_chat(header: str | None) -> None:
    with pytest.raises(ApiKeyInvalid):
        BOTH.check_chat(header)


@pytest.mark.parametrize(("keys", "header"), [(OPEN, None), (ADMIN_ONLY, "Bearer admin"), (BOTH, "Bearer admin")])
def test_who_may_change_adapters(keys: KeyRing, header: str | None) -> None:
    keys.check_admin(header)


@pytest.mark.parametrize(
    ("keys", "header", "error"),
    [
        (ADMIN_ONLY, None, ApiKeyInvalid),
        (CHAT_ONLY, None, ApiKeyInvalid),
        (CHAT_ONLY, "Bearer chat", AdminKeyRequired),
        (BOTH, "Bearer chat", AdminKeyRequired),
        (BOTH, "Bearer nobody", ApiKeyInvalid),
    ],
)
def test_who_may_not_change_adapters(keys: KeyRing, header: str | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        keys.check_admin(header)
