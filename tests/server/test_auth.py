"""KeyRing: which key is good for what, for each way of setting keys."""

import pytest

from server.api.auth import KeyRing
from server.config import Settings
from server.errors import AdminKeyRequired, ApiKeyInvalid
from server.keys import read_callers


def ring(api_keys: str, admin_keys: str) -> KeyRing:
    return KeyRing(read_callers(Settings(api_keys=api_keys or (), admin_keys=admin_keys or ())))  # type: ignore[arg-type]


OPEN, CHAT_ONLY = ring("", ""), ring("chat", "")
ADMIN_ONLY, BOTH = ring("", "admin"), ring("chat,é", "admin")


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
    keys.check_chat(keys.caller(header), header)


def test_each_known_key_is_a_tenant_and_all_others_are_one() -> None:
    salts = [BOTH.caller(f"Bearer {key}").digest for key in ("chat", "é", "admin")]
    assert len({*salts, b""}) == 4
    assert ADMIN_ONLY.caller("bearer  admin ").digest == BOTH.caller("Bearer admin").digest
    for keys, header in ((OPEN, None), (OPEN, "Bearer chat"), (ADMIN_ONLY, "Bearer chat"), (BOTH, "Basic chat")):
        assert keys.caller(header).digest == b""


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer nobody", "Basic chat", "chat", "Bearer chat chat"]
)
def test_who_may_not_chat(header: str | None) -> None:
    with pytest.raises(ApiKeyInvalid):
        BOTH.check_chat(BOTH.caller(header), header)


@pytest.mark.parametrize(("keys", "header"), [(OPEN, None), (ADMIN_ONLY, "Bearer admin"), (BOTH, "Bearer admin")])
def test_who_may_change_adapters(keys: KeyRing, header: str | None) -> None:
    keys.check_admin(keys.caller(header), header)


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
        keys.check_admin(keys.caller(header), header)
