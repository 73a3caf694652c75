"""The chat: streams, stopping, models side by side, reloads, keyboards, languages."""

from playwright.sync_api import Page, expect

from tests.browser.adapting import upload
from tests.browser.chatting import answers_of, compare_with, require_growing, require_state, say
from tests.browser.making import soft_prompt
from tests.browser.tab import Tab
from tests.server.building import Running, wait_until

BASE = "tiny-llama"
LONG = "count to 5000"


def _wait_until_aborted(server: Running, count: int) -> None:
    wait_until(lambda: server.engine.stats().num_aborted == count)
    assert server.engine.stats().num_running == server.engine.stats().num_waiting == 0


def test_an_answer_streams_and_says_how_fast_it_came(tab: Tab) -> None:
    page = tab.go()
    say(page, LONG)
    answer = answers_of(page, BASE)
    require_growing(answer)
    require_state(answer, "done")
    whole = " ".join(str(i) for i in range(1, 5001))
    expect(answer.locator(".markdown")).to_have_text(whole[:512].strip())  # a token for each byte, 512 unless asked
    for text in ("512 tokens", "first after", "tokens/s", "ended by its length"):
        expect(answer.locator(".stats")).to_contain_text(text)


def test_stopping_ends_the_servers_work(tab: Tab, server: Running) -> None:
    page = tab.go()
    say(page, LONG)
    require_growing(answers_of(page, BASE))
    page.get_by_role("button", name="Stop", exact=True).last.click()
    require_state(answers_of(page, BASE), "stopped")
    _wait_until_aborted(server, 1)
    page.get_by_role("button", name="Regenerate").click()
    require_growing(answers_of(page, BASE))
    page.keyboard.press("Escape")
    _wait_until_aborted(server, 2)


def test_two_models_answer_side_by_side_at_once(tab: Tab) -> None:
    upload(tab.url, "support", soft_prompt(5))
    page = tab.go()
    compare_with(page, "support")
    say(page, LONG)
    both = [answers_of(page, BASE), answers_of(page, "support")]
    for answer in both:
        require_growing(answer)
    for answer in both:
        require_state(answer, "streaming")
    boxes = [answer.bounding_box() for answer in both]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    page.keyboard.press("Escape")
    for answer in both:
        require_state(answer, "stopped")
    say(page, "hello")
    expect(answers_of(page, BASE).last.locator(".markdown")).to_have_text("hello")
    expect(answers_of(page, "support").last.locator(".markdown")).to_have_text("(5 rows) hello")


def test_a_reload_in_the_middle_of_a_stream_keeps_what_came_and_ends_the_rest(tab: Tab, server: Running) -> None:
    page = tab.go()
    say(page, LONG)
    require_growing(answers_of(page, BASE))
    page.reload()
    require_state(answers_of(page, BASE), "stopped")
    expect(answers_of(page, BASE).locator(".markdown")).to_contain_text("1 2 3")
    _wait_until_aborted(server, 1)
    say(page, "and now?")
    expect(answers_of(page, BASE).last.locator(".markdown")).to_have_text("and now?")


def test_all_can_be_done_with_a_keyboard_alone(tab: Tab) -> None:
    upload(tab.url, "support", soft_prompt(5))
    page = tab.go()
    expect(page.get_by_role("button", name=f"Model {BASE}")).to_be_visible()
    page.keyboard.type(LONG)  # the message has the focus from the start
    page.keyboard.press("Enter")
    require_growing(answers_of(page, BASE))
    page.keyboard.press("Escape")
    require_state(answers_of(page, BASE), "stopped")
    _tab_back_to(page, f"Model {BASE}")
    page.keyboard.press("Enter")
    page.keyboard.type("support")
    page.keyboard.press("Enter")
    _tab_to(page, "Message")
    page.keyboard.type("one line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    expect(answers_of(page, "support").locator(".markdown")).to_contain_text("(5 rows) one line")
    _tab_back_to(page, "Adapters")
    page.keyboard.press("Enter")
    _tab_to(page, "support")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="support")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="support", exact=True)).to_be_focused()


def _tab_to(page: Page, name: str, key: str = "Tab") -> None:
    """Go from control to control until one whose name begins so has the focus."""
    focused = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
    for _ in range(60):
        page.keyboard.press(key)
        if str(page.evaluate(focused)).startswith(name):
            return
    raise AssertionError(f"the keyboard does not reach {name!r}")


def _tab_back_to(page: Page, name: str) -> None:
    _tab_to(page, name, "Shift+Tab")


def test_the_page_speaks_chinese_and_so_does_the_model(tab: Tab) -> None:
    page = tab.go()
    page.get_by_role("button", name="中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
    page.reload()
    page.locator("textarea").first.fill("你好，世界！今天天气怎么样？")
    page.keyboard.press("Enter")
    expect(page.locator(".answer .markdown")).to_have_text("你好，世界！今天天气怎么样？")
    page.get_by_role("link", name="适配器").click()
    expect(page.get_by_role("heading", name="还没有适配器")).to_be_visible()
    page.get_by_role("button", name="注册适配器").click()
    expect(page.get_by_role("dialog", name="注册适配器")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("heading", name="No adapters yet")).to_be_visible()
