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


def test_each_known_key_is_a_tenant_and_all_others_are_one() -> None:
    salts = [BOTH.tenant_salt(f"Bearer {key}") for key in ("chat", "é", "admin")]
    assert len({*salts, b""}) == 4
    assert ADMIN_ONLY.tenant_salt("bearer  admin ") == BOTH.tenant_salt("Bearer admin")
    for keys, header in ((OPEN, None), (OPEN, "Bearer chat"), (ADMIN_ONLY, "Bearer chat"), (BOTH, "Basic chat")):
        assert keys.tenant_salt(header) == b""


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
