"""What a person does in the chat, in the page's own words."""

from playwright.sync_api import Locator, Page, expect


def say(page: Page, text: str) -> None:
    """Send a message."""
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def answers_of(page: Page, model: str) -> Locator:
    """The answers of one model, from the first to the last."""
    return page.get_by_role("article", name=f"Answer of {model}", exact=True)


def require_state(answer: Locator, state: str) -> None:
    """Wait until an answer is streaming, done, stopped or failed."""
    expect(answer).to_have_attribute("data-state", state)


def require_growing(answer: Locator) -> None:
    """Wait until an answer streams and two different beginnings of it were seen."""
    require_state(answer, "streaming")
    shown = answer.locator(".markdown")
    expect(shown).to_contain_text("2")
    before = shown.inner_text()
    expect(shown).not_to_have_text(before)
    assert shown.inner_text().startswith(before.rstrip())
    require_state(answer, "streaming")


def compare_with(page: Page, model: str) -> None:
    """Add a model beside the one that answers."""
    page.get_by_role("button", name="Compare").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".picker-note")).to_have_count(0)  # the list is read: nothing moves any more
    dialog.get_by_role("combobox").fill(model)
    page.get_by_role("option", name=model).first.click()
