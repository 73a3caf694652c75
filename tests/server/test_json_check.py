"""JSON bodies before anything reads them: what is refused names its field, and nothing else is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.json_check import MAX_BODY_DEPTH, check_json
from server.errors import BodyRefused


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        (b'{"a": NaN}', "a", "finite"),
        (b'{"a": {"b": [1, -Infinity]}}', "a.b.1", "finite"),
        (b'{"a": 1e999}', "a", "finite"),
        (b'{"a": 18446744073709551616}', "a", "64 bits"),
        (b'{"a": [-9223372036854775809]}', "a.0", "64 bits"),
        (b'{"a": ' + b"9" * 400 + b"}", "a", "64 bits"),
        (b'{"a": "\\ud800"}', "a", "surrogate"),
        (b'{"a": {"\\udfff": 1}}', "a", "surrogate"),
        (b'{"a": ' + b"9" * 5000 + b"}", None, "not valid JSON"),
        (b'{"a": "\xff"}', None, "not valid JSON"),
        (b"\xef\xbb\xbf{}", None, "not valid JSON"),
        ('{"a": 1}'.encode("utf-16"), None, "not valid JSON"),
        (b"{'a': 1}", None, "not valid JSON"),
        (b'{"a": 1} x', None, "not valid JSON"),
        (b"[" * 100_000, None, "not valid JSON"),
        (b"[" * 100_000 + b"]" * 100_000, None, "not valid JSON"),
        (b"[" * (MAX_BODY_DEPTH + 1) + b"]" * (MAX_BODY_DEPTH + 1), None, "deep"),
        (b'{"a":' * (MAX_BODY_DEPTH + 1) + b"1" + b"}" * (MAX_BODY_DEPTH + 1), None, "deep"),
    ],
)
def test_what_no_two_readers_understand_alike_is_refused(body: bytes, param: str | None, said: str) -> None:
    with pytest.raises(BodyRefused) as caught:
        check_json(body)
    assert (caught.value.status_code, caught.value.param) == (400, param)
    assert said in caught.value.detail
    assert param is None or caught.value.detail.startswith(f"{param}: ")


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": "\\u0000"}',
        b'{"a": 18446744073709551615, "b": -9223372036854775808}',
        b'{"a": "18446744073709551616"}',
        b'{"a": 0.1111111111111111111111}',
        b"[" * MAX_BODY_DEPTH + b"]" * MAX_BODY_DEPTH,
        b"1",
    ],
)
def test_what_is_harmless_is_left_to_the_fields(body: bytes) -> None:
    check_json(body)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_every_plain_json_passes(value: Any) -> None:
    check_json(json.dumps(value).encode())
    check_json(json.dumps(value, ensure_ascii=False).encode())
