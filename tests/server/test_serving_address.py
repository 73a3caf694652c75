"""The address that is told at the start is one that a browser can open."""

import pytest

from server.serve import url_of


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("fd00::1", "http://[fd00::1]:8000"),
    ],
)
def test_url_of(host: str, expected: str) -> None:
    assert url_of(host, 8000) == expected
