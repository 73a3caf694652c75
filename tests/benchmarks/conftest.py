"""Fixtures of the benchmarks' tests: a live tiny server, and a session that measures it."""

import os
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from adapters.store import AdapterStore
from benchmarks.launching import Launch
from benchmarks.load import Target, new_client
from benchmarks.options import Options
from benchmarks.process import ServerProcess
from benchmarks.prompts import PromptWriter
from benchmarks.random_adapters import SoftPromptMaker, publish_soft_prompts
from benchmarks.session import Session
from tests.server.building import live_server, tiny_settings
from tests.tiny import HIDDEN_SIZE, save_tiny_base

ADAPTERS = ("one", "two", "three")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base("llama", tmp_path_factory.mktemp("bases") / "tiny-llama")


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(
        scenarios=(), clients=(1, 2), requests=4, tokens=6, rounds=1, base="tiny", dtype="float32", out=tmp_path / "out"
    )


@pytest.fixture
def launch(tiny_base: Path, tmp_path: Path) -> Iterator[Launch]:
    """A server that runs already, with three adapters, as if it had been launched."""
    maker = SoftPromptMaker(hidden_size=HIDDEN_SIZE, virtual_tokens=5)
    publish_soft_prompts(AdapterStore(tmp_path / "store"), maker, ADAPTERS)
    with live_server(tiny_settings(tiny_base, tmp_path / "store")) as (running, _):
        yield Launch(
            command=(),
            environment={},
            ready_path="/ready",
            base_model="tiny-llama",
            target=Target(running.url, lambda _: {"ignore_eos": True}),
        )


@pytest.fixture
async def session(launch: Launch, options: Options) -> AsyncGenerator[Session]:
    async with new_client() as client:
        yield Session(
            server=ServerProcess(os.getpid(), launch, ready_seconds=1.5),
            adapters=ADAPTERS,
            maker=SoftPromptMaker(hidden_size=HIDDEN_SIZE, virtual_tokens=5),
            client=client,
            prompts=PromptWriter(lambda text: len(text.encode()) + 18),
            options=options,
            round=1,
        )
