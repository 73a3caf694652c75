"""A tab of the browser that notes what a page should never do. Knows no view."""

from dataclasses import dataclass, field

from playwright.sync_api import BrowserContext, ConsoleMessage, Dialog, Page, Request


@dataclass(slots=True)
class Tab:
    """A page with what went wrong on it, and what it asked for."""

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def go(self, view: str = "") -> Page:
        """Open the page, at a view if one is named."""
        self.page.goto(f"{self.url}/{view}")
        return self.page

    def require_quiet(self) -> None:
        """No script failed, no dialog came up, nothing was asked of other servers, the policy refused nothing."""
        assert self.problems == []
        assert [request for request in self.requests if not _is_own(request, self.url)] == []


def open_tab(context: BrowserContext, url: str) -> Tab:
    """A new tab that is watched."""
    tab = Tab(context.new_page(), url)
    tab.page.on("request", lambda request: _note_request(tab, request))
    tab.page.on("console", lambda message: _note_message(tab, message))
    tab.page.on("pageerror", lambda error: tab.problems.append(f"error: {error}"))
    tab.page.on("dialog", lambda dialog: _note_dialog(tab, dialog))
    tab.page.on("popup", lambda page: tab.problems.append(f"window: {page.url}"))
    return tab


def _note_request(tab: Tab, request: Request) -> None:
    tab.requests.append(request.url)


def _note_message(tab: Tab, message: ConsoleMessage) -> None:
    is_answer = message.text.startswith("Failed to load resource")  # a status such as 401, which the page handles
    if message.type == "error" and not is_answer:
        tab.problems.append(f"console: {message.text}")


def _note_dialog(tab: Tab, dialog: Dialog) -> None:
    tab.problems.append(f"dialog: {dialog.message}")
    dialog.dismiss()


def _is_own(request: str, url: str) -> bool:
    return request.startswith((f"{url}/", "blob:", "data:"))
