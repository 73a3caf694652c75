"""Fixtures of the server's tests: one tiny base for all, a fresh store and app for each."""

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import httpx
import pytest

from server.config import Settings
from tests.server.building import Running, app_client, live_server, tiny_settings
from tests.tiny import save_tiny_base

Served = tuple[Running, httpx.AsyncClient]


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base("llama", tmp_path_factory.mktemp("bases") / "tiny-llama")


@pytest.fixture
def settings(tiny_base: Path, tmp_path: Path) -> Settings:
    return tiny_settings(tiny_base, tmp_path / "store")


@pytest.fixture
async def served(settings: Settings) -> AsyncGenerator[Served]:
    async with app_client(settings) as started:
        yield started


@pytest.fixture
def live(settings: Settings) -> Iterator[Running]:
    with live_server(settings) as (running, _):
        yield running
