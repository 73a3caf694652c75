"""Flags, variables, routes and tests that the docs name in passing are there too."""

import ast
import re
from pathlib import Path

import pytest

from server.config import ENV_PREFIX, Settings
from tests.docs.command_line import leaves
from tests.docs.http_calls import Surface
from tests.docs.pages import PAGES, ROOT, inline_code_of

OF_OTHERS = {
    "--continuous-batching": "transformers serve",
    "--enable-lora": "vllm serve",
    "--enable-request-id-headers": "vllm serve",
    "--enable-scale-out": "vllm serve",
    "--format": "tar",
    "--time": "docker stop",
}
"""Flags of other people's programs."""
OTHER_VARIABLES = {"HOTPROMPT_HOME", "HOTPROMPT_API_KEY"}
FILES_OF_THE_PAGE = "/page/"
OLD = ("CHANGELOG.md",)
"""Says what was, too."""

_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_MODULE = re.compile(r"python -m (\S+)")
_ROUTE = re.compile(r"^(GET|POST|PATCH|DELETE|PUT) (/\S*)$")
_TEST = re.compile(r"\b(tests/[\w/]+\.py)::(\w+)")

EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
EACH_CURRENT_PAGE = pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in OLD], ids=lambda page: page.name
)


@EACH_CURRENT_PAGE
def test_flags(page: Path) -> None:
    known = {flag for leaf in leaves() for flag in leaf.flags} | set(OF_OTHERS)
    for code in inline_code_of(page):
        module = _MODULE.match(code)
        also = "" if module is None else (ROOT / f"{module[1].replace('.', '/')}.py").read_text()
        assert not [flag for flag in _FLAG.findall(code) if flag not in known and f'"{flag}"' not in also], code


@EACH_CURRENT_PAGE
def test_variables(page: Path) -> None:
    known = {ENV_PREFIX + field.upper() for field in Settings.model_fields} | OTHER_VARIABLES
    named = set(re.findall(rf"\b{ENV_PREFIX}[A-Z][A-Z_]*", page.read_text()))
    assert not named - known


@EACH_CURRENT_PAGE
def test_routes(page: Path, surface: Surface) -> None:
    for code in inline_code_of(page):
        if (found := _ROUTE.match(code)) and not found[2].startswith(FILES_OF_THE_PAGE):
            surface.route(found[1], re.sub(r"\{\w+\}", "x", found[2]))


@EACH_PAGE
def test_tests(page: Path) -> None:
    for path, name in _TEST.findall(page.read_text()):
        functions = ast.walk(ast.parse((ROOT / path).read_text()))
        assert name in {f.name for f in functions if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)}, name


def test_every_route_is_in_the_page_of_the_api(surface: Surface) -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    for route in surface.routes:
        if route.template.startswith(FILES_OF_THE_PAGE):
            continue
        path = re.sub(r"\{\w+\}", "{}", route.template)
        assert f"`{path}" in re.sub(r"\{\w+\}", "{}", page) or f" {path}" in re.sub(r"\{\w+\}", "{}", page), route.name
