"""The page as it is served: its files and their headers, its size, its languages, and what it must not do."""

import gzip
import hashlib
import json
import re
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from server.api.page import make_router
from server.page.files import INDEX, STATIC, read_page

BUDGET_BYTES = 150_000
"""Of all files, gzipped."""
FILES = read_page()
OURS = sorted(path for path in STATIC.rglob("*.js") if "vendor" not in path.parts)


@pytest.fixture
def client() -> httpx.AsyncClient:
    app = FastAPI()
    app.include_router(make_router(FILES))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_the_page_and_each_of_its_files_are_served_as_they_are(client: httpx.AsyncClient) -> None:
    for name, file in FILES.items():
        path = "/" if name == INDEX else f"/page/{name}"
        for encoding in ("gzip, br", "identity", "gzip;q=0", ""):
            answer = await client.get(path, headers={"accept-encoding": encoding})
            assert answer.status_code == 200
            assert answer.content == (STATIC / name).read_bytes()
            assert answer.headers["content-type"] == file.media_type
            assert ("content-encoding" in answer.headers) == (encoding == "gzip, br")


async def test_files_carry_a_strict_policy(client: httpx.AsyncClient) -> None:
    for path in ("/", "/page/app.js", "/page/base.css"):
        headers = (await client.get(path)).headers
        policy = headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "http" not in policy
        assert {"default-src 'none'", "frame-ancestors 'none'"} <= set(policy.split("; "))
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


async def test_a_file_that_is_known_is_not_sent_again(client: httpx.AsyncClient) -> None:
    first = await client.get("/page/app.js")
    again = await client.get("/page/app.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    other = await client.get("/page/app.js", headers={"if-none-match": 'W/"0"'})
    assert other.status_code == 200


@pytest.mark.parametrize(
    "name",
    ["index.html", "", "nothing.js", "../files.py", "%2e%2e/files.py", "vendor/VENDOR", "APP.js", "text"],
)
async def test_nothing_else_is_served(client: httpx.AsyncClient, name: str) -> None:
    assert (await client.get(f"/page/{name}")).status_code == 404


def test_the_page_stays_within_its_budget() -> None:
    sizes = {name: len(file.gzipped) for name, file in FILES.items()}
    assert sum(sizes.values()) < BUDGET_BYTES, sizes
    for file in FILES.values():
        assert gzip.decompress(file.gzipped) == file.content


def test_what_the_page_names_is_there() -> None:
    for name in re.findall(r'(?:href|src)="page/([^"]+)"', (STATIC / INDEX).read_text()):
        assert name in FILES
    for path in OURS:
        for target in re.findall(r"(?:from|import) ?\(?\"(\.[^\"]+)\"", path.read_text()):
            assert (path.parent / target).resolve().relative_to(STATIC.resolve()).as_posix() in FILES, (path, target)


def test_every_module_of_the_first_view_is_asked_for_at_once() -> None:
    pending = ["app.js"]
    found: set[str] = set()
    while pending:
        path = STATIC / pending.pop()
        targets = re.findall(r'from "(\.[^"]+)"', path.read_text())
        names = {(path.parent / target).resolve().relative_to(STATIC.resolve()).as_posix() for target in targets}
        pending += names - found
        found |= names
    assert set(re.findall(r'rel="modulepreload" href="page/([^"]+)"', (STATIC / INDEX).read_text())) == found


def test_both_languages_say_the_same_things() -> None:
    for prefix in ("", "adapters-"):
        english, chinese = (_table(STATIC / "text" / f"{prefix}{language}.js") for language in ("en", "zh"))
        assert english.keys() == chinese.keys()
        for key, text in english.items():
            assert re.findall(r"\{\w+\}", text) == sorted(re.findall(r"\{\w+\}", text), key=text.index)
            assert {*re.findall(r"\{\w+\}", text)} == {*re.findall(r"\{\w+\}", chinese[key])}, key
            assert text.strip()
            assert chinese[key].strip()


def test_every_text_that_is_asked_for_is_there_and_every_text_is_asked_for() -> None:
    known = {key for name in ("en", "adapters-en") for key in _table(STATIC / "text" / f"{name}.js")}
    sources = [path for path in OURS if path.parent.name != "text"] + [STATIC / INDEX]
    written = "\n".join(path.read_text() for path in sources)
    prefixes = set(re.findall(r"`([a-z]+(?:\.\w+)*\.)\$\{", written))
    families = "|".join({key.split(".")[0] for key in known})
    for key in re.findall(rf'"((?:{families})\.\w[\w.]*)"', written):
        assert key in known or key.endswith((".js", ".css", ".svg")), key
    for key in known:
        assert f'"{key}"' in written or any(key.startswith(prefix) for prefix in prefixes), f"nothing says {key}"


def test_scripts_make_no_html_of_text_and_run_none() -> None:
    for path in OURS:
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            path
        )
        assert len(text.splitlines()) <= 320, path
        assert text.startswith("// "), path


def test_vendored_files_are_those_that_their_note_names() -> None:
    note = (STATIC / "vendor" / "VENDOR").read_text()
    noted = re.findall(r"-> (\S+)\n  sha256 ([0-9a-f]{64})", note)
    assert {name for name, _ in noted} == {
        path.relative_to(STATIC / "vendor").as_posix() for path in (STATIC / "vendor").rglob("*.js")
    }
    for name, digest in noted:
        path = STATIC / "vendor" / name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
        assert (path.parent / "LICENSE").is_file()


def _table(path: Path) -> dict[str, str]:
    """A table of texts: a module with one object of strings, one on a line."""
    table: dict[str, str] = {}
    for key, text in re.findall(r'^  ("[^"]+"): *\n? *("(?:[^"\\]|\\.)*"),$', path.read_text(), re.MULTILINE):
        assert json.loads(key) not in table
        table[json.loads(key)] = json.loads(text)
    return table
