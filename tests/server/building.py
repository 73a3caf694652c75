"""Small real servers for the tests: a tiny base model, a store in a temporary directory, an app, a socket."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from adapters.files import AdapterFiles
from server.app import create_app
from server.config import Settings
from server.engine.async_engine import AsyncEngine
from server.serve import DrainingServer, open_listener, uvicorn_config
from server.services import Services, build_services
from tests.adapters.making import adapter_files
from tests.tiny import HIDDEN_SIZE

MAX_MODEL_LEN = 1024
WAIT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Running:
    """An app with its parts; `url` is where it listens, if it does."""

    app: FastAPI
    services: Services
    url: str

    @property
    def engine(self) -> AsyncEngine:
        return self.services.engine


def tiny_settings(base: Path, store: Path, **changes: Any) -> Settings:
    """Settings of a server on a tiny base, in float32 on the CPU."""
    settings: dict[str, Any] = {
        "base": str(base),
        "store": store,
        "device": "cpu",
        "dtype": "float32",
        "max_model_len": MAX_MODEL_LEN,
        "kv_cache_memory": "16MiB",
        "shutdown_grace_seconds": 20,
    }
    return Settings(**(settings | changes))


def soft_prompt_files(
    seed: int, *, num_virtual_tokens: int = 5, manifest: Mapping[str, Any] | None = None
) -> AdapterFiles:
    """An adapter of the tiny bases' width; another seed gives other answers."""
    content = None if manifest is None else json.dumps(manifest).encode()
    return adapter_files(num_virtual_tokens=num_virtual_tokens, width=HIDDEN_SIZE, seed=seed, manifest=content)


def multipart(files: AdapterFiles, **more: tuple[str, bytes]) -> dict[str, tuple[str, bytes]]:
    """The file parts of an upload, for httpx."""
    return {name: (name, content) for name, content in files.by_name().items()} | more


@asynccontextmanager
async def app_client(settings: Settings, **headers: str) -> AsyncGenerator[tuple[Running, httpx.AsyncClient]]:
    """A started app and a client that calls it without a socket. A stream's body comes whole, at its end."""
    services = build_services(settings)
    app = create_app(services, settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers, timeout=WAIT_SECONDS) as client,
    ):
        yield Running(app, services, "http://test"), client


@contextmanager
def live_server(settings: Settings) -> Iterator[tuple[Running, DrainingServer]]:
    """A server on a free port of this machine, in a thread of its own; it is told to end when the block is left."""
    with live_services(build_services(settings), settings) as live:
        yield live


@contextmanager
def live_services(services: Services, settings: Settings) -> Iterator[tuple[Running, DrainingServer]]:
    """The same around services that were opened otherwise."""
    app = create_app(services, settings)
    with open_listener("127.0.0.1", 0) as listener:
        server = DrainingServer(uvicorn_config(app), services.engine, grace_seconds=settings.shutdown_grace_seconds)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="server")
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield Running(app, services, f"http://127.0.0.1:{listener.getsockname()[1]}"), server
        finally:
            stop(server)
            stop(server)  # a second signal: whatever still runs is given up
            thread.join(WAIT_SECONDS)
    assert not thread.is_alive()


def stop(server: uvicorn.Server) -> None:
    """What a SIGTERM does."""
    server.handle_exit(15, None)


def wait_until(condition: Any, *, seconds: float = WAIT_SECONDS) -> None:
    """Poll for something that another thread brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


async def wait_until_async(condition: Any, *, seconds: float = WAIT_SECONDS) -> None:
    """The same, on an event loop."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.005)


def chat_body(model: str, text: str = "hello", **fields: Any) -> dict[str, Any]:
    """A greedy chat request."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 24,
    } | fields


def events_of(body: str) -> list[Any]:
    """The data of server-sent events: parsed JSON, and [DONE] as it stands. Pings are left out."""
    data = [line.removeprefix("data: ") for line in body.split("\n") if line.startswith("data: ")]
    return [item if item == "[DONE]" else json.loads(item) for item in data]


def text_of(events: list[Any]) -> str:
    """The content of a stream's chunks."""
    choices = [event["choices"][0] for event in events if event != "[DONE]" and event["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)
