"""Unloading each kind of adapter frees everything: its tensors, their copies for the model, its blocks, the books."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import httpx
import pytest
import torch

from adapters.files import read_adapter_directory
from adapters.home import home_directory
from adapters.injections import Injection, KVRows, SoftPrompt, WeightDelta
from server import services
from server.engine.engine import Engine, SequenceOutput
from server.engine.forward import StockForward
from server.engine.loader import load_engine
from server.engine.model_runner import ModelRunner
from server.engine.native.forward import NativeForward
from tests.native import require_native
from tests.server.building import (
    WAIT_SECONDS,
    Running,
    chat_body,
    live_server,
    multipart,
    tiny_settings,
    wait_until_async,
)
from tests.server.test_adapter_kinds import saved

pytestmark = pytest.mark.slow

KINDS = ("prompt_tuning", "prefix_tuning", "cartridge", "lora", "ia3")
ENGINES = ("stock float32", "stock bfloat16", "native bfloat16")


@pytest.fixture(params=ENGINES)
def live(
    request: pytest.FixtureRequest, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Running]:
    """A server on each of the engines: the adapter's own tensors, copies of them, and packed ones."""
    engine, dtype = request.param.split()
    if engine == "native":
        require_native(home_directory() / "native")
    else:
        monkeypatch.setattr(
            services, "load_engine", lambda *given, **named: load_engine(*given, **named | {"native_cache": None})
        )
    with live_server(tiny_settings(tiny_base, tmp_path / "store", dtype=dtype)) as (running, _):
        yield running


def tensors_of(injection: Injection) -> tuple[torch.Tensor, ...]:
    match injection:
        case SoftPrompt():
            return (injection.embeddings,)
        case KVRows():
            return (injection.keys, injection.values)
        case WeightDelta():
            return tuple(chain.from_iterable(delta.tensors for delta in injection.modules.values()))


def held(running: Running, name: str) -> list["weakref.ref[torch.Tensor]"]:
    """What is asked of an adapter's tensors afterwards: whether anybody still has them."""
    found = [weakref.ref(tensor) for tensor in tensors_of(running.services.registry.get(name).injection)]
    assert found
    return found


def num_copies(running: Running) -> int:
    """Whether there are copies of weight deltas for the model: their bytes, or how many are packed."""
    runner = running.engine._engine._runner
    assert isinstance(runner, ModelRunner)
    forward = runner._forward
    if isinstance(forward, NativeForward):
        return forward.num_packed_deltas
    assert isinstance(forward, StockForward)
    return forward._deltas.placed.num_bytes


@contextmanager
def held_up(running: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside the block, the engine's next step waits: what runs then goes on running."""
    engine, go_on = running.engine._engine, threading.Event()
    step = engine.step

    def waiting() -> list[SequenceOutput]:
        assert go_on.wait(WAIT_SECONDS)
        return step()

    with monkeypatch.context() as patched:
        patched.setattr(engine, "step", waiting)
        try:
            yield
        finally:
            go_on.set()


async def check_all_is_free(running: Running, tensors: "list[weakref.ref[torch.Tensor]]") -> None:
    """No bytes, no pins, no blocks, no rows of the books, and nobody who holds a tensor."""
    engine: Engine = running.engine._engine
    await wait_until_async(lambda: not engine.has_work and engine.stats().num_pinned_blocks == 0)
    gc.collect()
    assert [reference() for reference in tensors if reference() is not None] == []
    stats = engine.stats()
    assert stats.num_free_blocks == stats.num_blocks
    assert (running.services.registry.num_bytes, num_copies(running)) == (0, 0)
    assert running.services.registry.pinned_digests() == set()
    assert (engine._sequences, engine._injections) == ({}, {})
    engine.check_integrity()


async def test_unloading_each_kind_frees_everything(
    live: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
        for kind in KINDS:
            files = read_adapter_directory(saved(kind, tmp_path / kind))
            uploaded = await client.post("/v1/adapters", data={"name": kind}, files=multipart(files))
            assert uploaded.status_code == 201, uploaded.text
            del files
            assert (await client.patch(f"/v1/adapters/{kind}", json={"pinned": True})).status_code == 200
            tensors = held(live, kind)
            body = chat_body(kind, ignore_eos=True, max_tokens=20)
            alone = (await client.post("/v1/chat/completions", json=body)).json()["choices"]
            if kind in ("lora", "ia3"):
                assert bool(num_copies(live)) is (live.services.numbers == "bfloat16")
            with held_up(live, monkeypatch):
                running = [asyncio.create_task(client.post("/v1/chat/completions", json=body)) for _ in range(2)]
                await wait_until_async(lambda: live.app.state.parts.use.running(kind).total() == 2)  # noqa: B023
                told = (await client.delete(f"/v1/adapters/{kind}")).json()
                assert (told["running"], told["was_pinned"]) == (2, True), kind
            choices = [(await task).json()["choices"] for task in running]
            assert [choice[0]["finish_reason"] for choice in choices] == ["length"] * 2, kind
            if live.services.numbers == "float32":  # rounding may depend on what is computed beside it
                assert choices == [alone] * 2, kind
            del running
            await check_all_is_free(live, tensors)


async def test_replacing_each_kind_frees_the_version_before(live: Running, tmp_path: Path) -> None:
    """All kinds under one name, one after another: what was current before is freed when its name is removed."""
    tensors: list[weakref.ref[torch.Tensor]] = []
    async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
        for kind in KINDS:
            files = read_adapter_directory(saved(kind, tmp_path / kind))
            assert (await client.post("/v1/adapters", data={"name": "team"}, files=multipart(files))).status_code == 201
            answered = await client.post("/v1/chat/completions", json=chat_body("team", max_tokens=4))
            assert answered.status_code == 200
            tensors += held(live, "team")
        assert live.services.registry.num_bytes > 0
        await client.delete("/v1/adapters/team")
        await check_all_is_free(live, tensors)
