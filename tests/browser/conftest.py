"""Fixtures of the browser tests: one Chromium, servers that echo, and a fresh tab that watches what a page does."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

from tests.browser.echoing import echo_services
from tests.browser.tab import Tab, open_tab
from tests.server.building import Running, live_services, tiny_settings
from tests.tiny import save_tiny_base

ADMIN_KEY = "sk-admin-0123456789"
CHAT_KEY = "sk-chat-0123456789"
NAMES = ("chromium", "chromium-browser", "google-chrome")
WAIT_MILLISECONDS = 20_000
"""For what should be there at once: the cores may be shared."""
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs Chromium."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base("llama", tmp_path_factory.mktemp("bases") / "tiny-llama")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    assert path is not None, f"none of {', '.join(NAMES)} is installed: run `make test-browser`"
    expect.set_options(timeout=WAIT_MILLISECONDS)
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def server(base: Path, tmp_path: Path) -> Iterator[Running]:
    """Open to all, with an empty store."""
    settings = tiny_settings(base, tmp_path / "store", shutdown_grace_seconds=1)
    with live_services(echo_services(base, tmp_path / "store"), settings) as (running, _):
        yield running


@pytest.fixture
def keyed_server(base: Path, tmp_path: Path) -> Iterator[Running]:
    """Asks for a key, and for an admin's to change adapters."""
    keys = {"api_keys": CHAT_KEY, "admin_keys": ADMIN_KEY}
    settings = tiny_settings(base, tmp_path / "store", shutdown_grace_seconds=1, **keys)
    with live_services(echo_services(base, tmp_path / "store"), settings) as (running, _):
        yield running


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """Cookies, storage and windows of one test."""
    context = chromium.new_context(locale="en-GB", viewport={"width": 1280, "height": 800})
    yield context
    context.close()


@pytest.fixture
def tab(context: BrowserContext, server: Running) -> Iterator[Tab]:
    """A tab on the open server that fails the test for any script error, refused resource or request elsewhere."""
    tab = open_tab(context, server.url)
    yield tab
    tab.require_quiet()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where pictures are kept, for people to look at; CI keeps them."""
    directory = Path(os.environ.get("SCREENSHOTS", "build/screenshots"))
    directory.mkdir(parents=True, exist_ok=True)
    return directory
