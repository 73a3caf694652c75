"""What a person does in the adapters view, in the page's own words."""

import re
from collections.abc import Mapping

import httpx
from playwright.sync_api import FilePayload, Locator, Page, expect

from adapters.files import AdapterFiles
from tests.browser.tab import Tab
from tests.server.building import multipart


def upload(url: str, name: str, files: AdapterFiles, *, key: str | None = None) -> str:
    """Register an adapter without the page; gives its digest."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    answer = httpx.post(f"{url}/v1/adapters", data={"name": name}, files=multipart(files), headers=headers)
    assert answer.status_code == 201, answer.text
    digest: str = answer.json()["digest"]
    return digest


def payloads(files: Mapping[str, bytes]) -> list[FilePayload]:
    """Files as the browser's file dialog gives them."""
    return [{"name": name, "mimeType": "application/octet-stream", "buffer": data} for name, data in files.items()]


def open_adapters(tab: Tab) -> Page:
    page = tab.go("#/adapters")
    expect(page.get_by_role("button", name="Register an adapter")).to_be_visible()
    return page


def register(page: Page, name: str, files: Mapping[str, bytes]) -> Locator:
    """Fill the dialog and send it; gives the dialog, which then shows what the server said."""
    page.get_by_role("button", name="Register an adapter").click()
    dialog = page.get_by_role("dialog")
    dialog.locator("input[type=file]").set_input_files(payloads(files))
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_role("button", name="Register").click()
    return dialog


def open_adapter(page: Page, name: str) -> Locator:
    """The dialog of one adapter."""
    page.get_by_role("button", name=name, exact=True).click()
    dialog = page.get_by_role("dialog", name=name, exact=True)
    expect(dialog.get_by_text("Digest")).to_be_visible()
    return dialog


def row_of(page: Page, name: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("button", name=re.compile(f"^{re.escape(name)}$")))
