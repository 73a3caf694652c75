"""Every route against every way of asking wrongly: the right status, OpenAI's shape, the request's id, and no 5xx."""

from typing import Any

import httpx
import pytest

from tests.server.conftest import Served
from tests.server.routes import NOBODY, RouteUnderTest, methods_of, routes_of

JSON = {"content-type": "application/json"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY")

UPLOAD = "POST /v1/adapters"


async def ask(client: httpx.AsyncClient, method: str, path: str, **fields: Any) -> httpx.Response:
    headers = [(b"x-request-id", b"asked-1"), *httpx.Headers(fields.pop("headers", {})).raw]
    response = await client.request(method, path, headers=headers, **fields)
    assert response.headers["x-request-id"] == "asked-1", (method, path)
    assert response.status_code < 500, (method, path, fields)
    return response


def check_error(response: httpx.Response, *statuses: int) -> dict[str, Any]:
    """The answer is an error of OpenAI's shape with one of these statuses."""
    where = (response.request.method, response.request.url.path, response.status_code)
    assert response.status_code in statuses, where
    assert response.headers["content-type"] == "application/json", where
    body = response.json()
    assert set(body) == {"error"}, where
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}, where
    assert all(error[field] for field in ("message", "type", "code")), where
    assert "Traceback" not in error["message"], where
    return error


def with_json_bodies(routes: list[RouteUnderTest]) -> list[RouteUnderTest]:
    found = [route for route in routes if route.body is not None]
    assert found
    return found


async def test_wrong_methods_are_405_and_told_what_is_allowed(served: Served) -> None:
    running, client = served
    routes = routes_of(running.app)
    for template in {route.template for route in routes}:
        path = next(route.path for route in routes if route.template == template)
        allowed = methods_of(routes, path)
        for method in set(METHODS) - allowed:
            response = await ask(client, method, path)
            assert response.headers["allow"] == ", ".join(sorted(allowed)), (method, path)
            assert response.status_code == 405
            if method != "HEAD":
                assert check_error(response, 405)["code"] == "method_not_allowed"


async def test_unknown_routes_are_404(served: Served) -> None:
    _, client = served
    of_the_page = ("/index.html", "/page", "/page/", "/page/index.html")
    of_the_api = ("/v1", "/v2/models", "/v1/chat", "/V1/models", "/health/", "/v1//models", "/v1/models%00x/..")
    for path in of_the_page + of_the_api:
        for method in ("GET", "POST"):
            assert check_error(await ask(client, method, path), 404, 405)["code"] in (
                "not_found",
                "model_not_found",
                "method_not_allowed",
            )


async def test_names_that_do_not_exist_are_404(served: Served) -> None:
    running, client = served
    named = [route for route in routes_of(running.app) if route.path != route.template]
    assert named
    for route in named:
        for example in route.examples or [None]:
            error = check_error(await ask(client, route.method, route.path, json=example), 404)
            kind = "job" if "{job}" in route.template else "model"
            assert (error["code"], error["param"]) == (f"{kind}_not_found", kind), route.name


async def test_names_that_are_no_names_are_refused(served: Served) -> None:
    running, client = served
    for route in routes_of(running.app):
        for name in ("..%2f..%2fetc%2fpasswd", "%00", "%ff%fe", "a" * 3000, "%F0%9F%92%A9", "a@b@c", "a%0d%0ax:%20y"):
            if route.path == route.template:
                continue
            path = route.path.replace(NOBODY, name)
            for example in route.examples or [None]:
                check_error(await ask(client, route.method, path, json=example), 400, 404, 405)


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx", ";"]
)
async def test_a_body_that_does_not_say_it_is_json_is_415(served: Served, content_type: str | None) -> None:
    running, client = served
    headers = {} if content_type is None else {"content-type": content_type}
    for route in with_json_bodies(routes_of(running.app)):
        response = await ask(client, route.method, route.path, content=b'{"model": "x"}', headers=headers)
        assert check_error(response, 415)["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json"]
)
async def test_json_may_be_called_json_in_other_words(served: Served, content_type: str) -> None:
    running, client = served
    for route in with_json_bodies(routes_of(running.app)):
        response = await ask(client, route.method, route.path, content=b"{}", headers={"content-type": content_type})
        assert check_error(response, 400)["code"] == "invalid_value"


HOSTILE = {
    "nothing": b"",
    "no JSON": b"{",
    "an array": b"[]",
    "null": b"null",
    "a string": b'"x"',
    "a number": b"1",
    "invalid UTF-8": b'{"model": "\xff\xfe"}',
    "UTF-16": '{"model": "x"}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "NaN": b'{"temperature": NaN}',
    "infinity": b'{"temperature": -Infinity}',
    "too large a number": b'{"temperature": 1e999}',
    "a long integer": b'{"seed": ' + b"9" * 400 + b"}",
    "a longer integer": b'{"seed": ' + b"9" * 10_000 + b"}",
    "half a surrogate pair": b'{"model": "\\ud800"}',
    "a key that is no text": b'{"\\udfff": 1}',
    "NUL": b'{"model": "a\\u0000b", "\\u0000": "\\u0000"}',
    "too deep": b'{"a":' * 100 + b"1" + b"}" * 100,
    "far too deep": b"[" * 200_000,
    "much, nested": b"[" + b"[[]]," * 100_000 + b"1]",
    "many fields": b"{" + b",".join(b'"f%d": 1' % number for number in range(50_000)) + b"}",
    "a field twice": b'{"model": 1, "model": 2}',
    "a long key": b'{"' + b"k" * 100_000 + b'": 1}',
    "comments": b'{"model": "x" /* y */}',
}


@pytest.mark.parametrize("kind", list(HOSTILE))
async def test_hostile_bodies_are_400(served: Served, kind: str) -> None:
    running, client = served
    for route in with_json_bodies(routes_of(running.app)):
        error = check_error(await ask(client, route.method, route.path, content=HOSTILE[kind], headers=JSON), 400)
        assert len(error["message"]) < 2000, route.name
        assert "\x00" not in error["message"], route.name


@pytest.mark.parametrize(
    "hostile", ["\x00", "a\x00b", "\u202e", "\ud7ff\ue000", "💩" * 100, "../../etc/passwd", "{{ 7 * 7 }}"]
)
async def test_odd_text_in_every_field_makes_no_5xx(served: Served, hostile: str) -> None:
    running, client = served
    for route in with_json_bodies(routes_of(running.app)):
        for example in route.examples:
            for changed in spoilt(example, hostile):
                response = await ask(client, route.method, route.path, json=changed)
                if response.status_code >= 400:
                    check_error(response, 400, 404)


def spoilt(value: Any, hostile: str) -> list[Any]:
    """The value as often as it has inner values, each time with another of them replaced."""
    if isinstance(value, dict):
        return [value | {key: inner} for key in value for inner in spoilt(value[key], hostile)] + [value | {hostile: 1}]
    if isinstance(value, list):
        return [
            [*value[:at], inner, *value[at + 1 :]] for at in range(len(value)) for inner in spoilt(value[at], hostile)
        ]
    return [hostile, [hostile], {hostile: hostile}, None]


async def test_too_much_is_413_before_it_is_read(served: Served) -> None:
    running, client = served
    for route in routes_of(running.app):
        if route.body is not None:
            response = await ask(client, route.method, route.path, content=b"x" * (4 << 20) + b"x", headers=JSON)
            assert check_error(response, 413)["code"] == "body_too_large"
    form = {"content-type": "multipart/form-data; boundary=x", "content-length": str(1 << 30)}
    assert check_error(await ask(client, "POST", "/v1/adapters", content=b"--x", headers=form), 413)


async def test_bodies_where_none_is_wanted_change_nothing(served: Served) -> None:
    running, client = served
    for route in routes_of(running.app):
        if route.body is None and route.name != UPLOAD:
            for content in (b"\xff", b"{", b'{"a": NaN}'):
                response = await ask(client, route.method, route.path, content=content, headers=JSON)
                assert response.status_code == (await ask(client, route.method, route.path)).status_code, route.name


FORM = b"multipart/form-data; boundary=x"
PART = b"--x\r\ncontent-disposition: form-data; "

NO_FORMS: dict[str, tuple[bytes, bytes | None, int]] = {
    "JSON": (b"{}", b"application/json", 400),
    "nothing": (b"", None, 415),
    "without a boundary": (b"", b"multipart/form-data", 400),
    "not begun": (b"\xff", FORM, 400),
    "without a header": (b"--x\r\n\r\n", FORM, 400),
    "without an end": (PART + b'name="name"\r\n\r\nteam\r\n', FORM, 400),
    "a name that is no text": (PART + b'name="\xff"\r\n\r\n\xff\r\n--x--\r\n', FORM, 400),
    "a value that is no text": (PART + b'name="name"\r\n\r\n\xff\x00\r\n--x--\r\n', FORM, 400),
    "a part without a name": (PART + b"\r\n\r\nteam\r\n--x--\r\n", FORM, 400),
    "a boundary that is no text": (b"--x--\r\n", b"multipart/form-data; boundary=\xff", 400),
    "a long boundary": (b"--x--\r\n", b"multipart/form-data; boundary=" + b"x" * 3000, 400),
    "an unknown encoding": (PART + b'name="name"\r\n\r\nx\r\n--x--\r\n', FORM + b"; charset=nonsense", 400),
}


@pytest.mark.parametrize("kind", list(NO_FORMS))
async def test_uploads_that_are_no_forms(served: Served, kind: str) -> None:
    content, content_type, status = NO_FORMS[kind]
    headers = {} if content_type is None else {b"content-type": content_type}
    check_error(await ask(served[1], "POST", "/v1/adapters", content=content, headers=headers), status)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"authorization", b"Bearer \xff\xfe"),
        (b"authorization", b"Bearer " + b"x" * 10_000),
        (b"content-type", b"application/json; charset=\xff"),
        (b"content-type", b"\xff/json"),
        (b"content-length", b"-1"),
        (b"content-length", b"9" * 100),
        (b"accept", b"\xff"),
        (b"host", b"a/?x="),
        (b"expect", b"100-continue"),
        (b"origin", b"\xff"),
    ],
)
async def test_odd_headers_make_no_5xx(served: Served, name: bytes, value: bytes) -> None:
    running, client = served
    for route in routes_of(running.app):
        await ask(client, route.method, route.path, headers={name: value})
