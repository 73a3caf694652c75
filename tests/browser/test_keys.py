"""Keys: asked for when they are needed, refused when they are wrong, kept in the tab alone."""

from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.adapting import register
from tests.browser.chatting import answers_of, say
from tests.browser.conftest import ADMIN_KEY, CHAT_KEY
from tests.browser.making import soft_prompt
from tests.browser.tab import open_tab
from tests.server.building import Running


def _give_key(page: Page, key: str, *, reason: str) -> None:
    dialog = page.get_by_role("dialog", name="API key")
    expect(dialog.get_by_text(reason)).to_be_visible()
    dialog.get_by_label("Key", exact=True).fill(key)
    page.keyboard.press("Enter")


def test_a_key_is_asked_for_until_it_is_right_and_stays_in_the_tab(
    context: BrowserContext, keyed_server: Running
) -> None:
    tab = open_tab(context, keyed_server.url)
    page = tab.go()
    _give_key(page, "sk-wrong-0123456789", reason="This server asks for a key.")
    _give_key(page, CHAT_KEY, reason="The server does not know this key.")
    expect(page.get_by_role("button", name="Model tiny-llama")).to_be_visible()
    say(page, "hello")
    expect(answers_of(page, "tiny-llama").locator(".markdown")).to_have_text("hello")
    page.get_by_role("link", name="Adapters").click()
    register(page, "support", soft_prompt(5).by_name())
    _give_key(page, ADMIN_KEY, reason="This needs an admin key.")
    expect(page.get_by_text("support is registered")).to_be_visible()
    kept = page.evaluate("JSON.stringify([{...localStorage}, document.cookie, location.href])")
    assert "sk-" not in kept
    assert ADMIN_KEY in page.evaluate("JSON.stringify({...sessionStorage})")
    other = open_tab(context, keyed_server.url)
    expect(other.go().get_by_role("dialog", name="API key")).to_be_visible()
    for each in (tab, other):
        each.require_quiet()


def test_who_gives_no_key_gets_no_answer(context: BrowserContext, keyed_server: Running) -> None:
    tab = open_tab(context, keyed_server.url)
    page = tab.go()
    page.get_by_role("dialog", name="API key").get_by_role("button", name="Close").click()
    page.get_by_role("link", name="Adapters").click()
    page.get_by_role("dialog", name="API key").get_by_role("button", name="Close").click()
    expect(page.get_by_role("alert")).to_contain_text("API key")
    tab.require_quiet()
