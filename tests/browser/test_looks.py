"""Pictures of both views, in both themes, on a desk and on a phone; and that nothing sticks out sideways."""

from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.browser.adapting import upload
from tests.browser.chatting import compare_with
from tests.browser.echoing import QUESTION
from tests.browser.making import soft_prompt, trained_prompt
from tests.browser.tab import Tab, open_tab
from tests.server.building import Running

SIZES: dict[str, ViewportSize] = {"desk": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}

WIDER = """() => [document.documentElement, ...document.querySelectorAll("main, .view, dialog, .dialog-body, .card")]
    .filter((node) => node.scrollWidth > node.clientWidth).map((node) => node.className || node.tagName)"""
"""What has more in it than it is wide."""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_both_views_are_pictured(
    chromium: Browser, server: Running, screenshots: Path, size: str, theme: Literal["light", "dark"]
) -> None:
    _fill(server.url)
    context = chromium.new_context(
        viewport=SIZES[size], color_scheme=theme, locale="zh-CN" if (size, theme) == ("phone", "dark") else "en-GB"
    )
    try:
        tab = open_tab(context, server.url)
        _picture_chat(tab, screenshots / f"chat-{size}-{theme}.png")
        _picture_adapters(tab, screenshots, f"{size}-{theme}")
        tab.require_quiet()
    finally:
        context.close()


def _picture_chat(tab: Tab, path: Path) -> None:
    page = tab.go()
    models = 1
    if path.name.startswith("chat-desk"):
        compare_with(page, "support")
        models = 2
    page.locator("textarea").first.fill(QUESTION)
    page.locator("textarea").first.press("Enter")
    expect(page.locator(".answer[data-state=done]")).to_have_count(models)
    _picture(page, path)


def _picture_adapters(tab: Tab, directory: Path, suffix: str) -> None:
    page = tab.page
    page.locator(".tabs [data-view=adapters]").click()
    expect(page.locator("#adapters tbody tr")).to_have_count(4)
    _picture(page, directory / f"adapters-{suffix}.png")
    page.locator("#register").click()
    _picture(page, directory / f"register-{suffix}.png")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="support", exact=True).click()
    expect(page.locator("dialog svg.curve")).to_be_visible()
    _picture(page, directory / f"adapter-{suffix}.png")
    page.locator("dialog svg.curve").scroll_into_view_if_needed()
    _picture(page, directory / f"curve-{suffix}.png")


def _picture(page: Page, path: Path) -> None:
    page.screenshot(path=path)
    assert page.evaluate(WIDER) == [], f"{path.name}: something is wider than what it lies in"


def _fill(url: str) -> None:
    upload(url, "support", trained_prompt(12))
    upload(url, "support", trained_prompt(20))
    for name, rows in (("movie-sentiment", 17), ("legal-de", 8)):
        upload(url, name, trained_prompt(rows))
    upload(url, "from-elsewhere", soft_prompt(10))
