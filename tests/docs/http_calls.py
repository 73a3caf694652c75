"""Holds a curl command to the routes: its path, method, headers and body. Sends nothing."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit

from pydantic import TypeAdapter

from server.api.uploads import UPLOAD_CONTENT
from server.protocol.adapter_jobs import AdapterSource
from tests.server.routes import RouteUnderTest

JSON = "application/json"
UPLOADS = ("POST /v1/adapters",)
"""Where a form is taken, or JSON that names a source."""


class WrongCall(AssertionError):
    """A command that would not do what the page says; the message says why."""


@dataclass(frozen=True, slots=True)
class Surface:
    """The routes of an app, and its OpenAPI document."""

    routes: tuple[RouteUnderTest, ...]
    document: dict[str, Any]

    def route(self, method: str, path: str) -> RouteUnderTest:
        """The route of a method and a path, which may have `{names}` or values. Raises WrongCall."""
        there = [route for route in self.routes if _matches(route.template, path)]
        for route in there:
            if route.method == method:
                return route
        raise WrongCall(f"{method} {path}: " + (f"only {', '.join(r.method for r in there)}" if there else "no route"))


def _matches(template: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template)), path) is not None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise WrongCall(f"curl: {message}")


def _parser() -> argparse.ArgumentParser:
    """curl's options, as far as docs use them."""
    parser = _Parser(prog="curl", add_help=False, allow_abbrev=False)
    for flags in (
        ("-s", "--silent"),
        ("-S", "--show-error"),
        ("-N", "--no-buffer"),
        ("-i", "--include"),
        ("-f", "--fail"),
    ):
        parser.add_argument(*flags, action="store_true")
    parser.add_argument("-X", "--request")
    parser.add_argument("-H", "--header", action="append", default=[])
    parser.add_argument("-d", "--data")
    parser.add_argument("-F", "--form", action="append", default=[])
    parser.add_argument("-o", "--output")
    parser.add_argument("url")
    return parser


def check_curl(words: Sequence[str], surface: Surface) -> None:
    """Raises WrongCall for a command that the server would answer with an error, whatever adapters it has."""
    call = _parser().parse_args(list(words[1:]))
    sends = call.data is not None or bool(call.form)
    address = urlsplit(call.url)
    if address.query:
        raise WrongCall(f"{call.url}: no route takes a query")
    route = surface.route(call.request or ("POST" if sends else "GET"), address.path or "/")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in call.header)}
    if not set(headers) <= {"content-type", "authorization", "x-request-id"}:
        raise WrongCall(f"headers {sorted(headers)}")
    if call.form:
        _check_form(route, call.form)
    elif call.data is not None:
        _check_body(route, headers, call.data)
    elif route.body is not None and route.name not in UPLOADS:
        raise WrongCall(f"{route.name} needs a body")


def _check_form(route: RouteUnderTest, fields: Sequence[str]) -> None:
    schema = UPLOAD_CONTENT["multipart/form-data"]["schema"]
    sent = {field.partition("=")[0]: field.partition("=")[2] for field in fields}
    wrong = set(sent) - set(schema["properties"])
    if route.name not in UPLOADS or wrong or not set(schema["required"]) <= set(sent):
        raise WrongCall(f"{route.name} with the fields {sorted(sent)}")
    for name, value in sent.items():
        if (name == "name") == value.startswith("@"):
            raise WrongCall(f"{name}={value}")


def _check_body(route: RouteUnderTest, headers: dict[str, str], body: str) -> None:
    if headers.get("content-type") != JSON:
        raise WrongCall(f"{route.name}: no header content-type: {JSON}")
    model = AdapterSource if route.name in UPLOADS else route.body
    if model is None:
        raise WrongCall(f"{route.name} takes no body")
    TypeAdapter(model).validate_json(body)
