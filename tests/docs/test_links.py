"""Every link of every page leads to a file that is there, and to a heading that is in it."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, anchors_of, links_of

PACKAGES = ("adapters", "benchmarks", "client", "examples", "server", "tests", "training")

_MENTION = re.compile(rf"(?<![\w/.-])(?:docs|{'|'.join(PACKAGES)})/[\w/.-]+\.(?:md|py|yaml)\b")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in links_of(page):
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), target
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors_of(there), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    for mention in _MENTION.findall(page.read_text()):
        assert (ROOT / mention).exists(), mention


def test_pages_that_the_program_names_are_there() -> None:
    sources = [ROOT / "hotprompt.py", *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]
    for source in sources:
        if any(part.startswith((".venv", "node_modules")) for part in source.parts):  # the conformance suite's clients
            continue
        for mention in re.findall(r"\bdocs/[a-z-]+\.md", source.read_text()):
            assert (ROOT / mention).exists(), (source, mention)


def test_what_looks_like_a_link_is_read() -> None:
    assert links_of(ROOT / "README.md")
    assert "keys" in anchors_of(ROOT / "docs" / "api.md")
    assert "中文例子" in anchors_of(ROOT / "docs" / "training.md")
