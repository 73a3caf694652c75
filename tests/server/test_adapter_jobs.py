"""Adapters that the server fetches by itself: what jobs go through, what is refused, and that nothing waits."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from adapters.files import MAX_FILE_BYTES, AdapterFiles
from server.config import Settings
from server.jobs import MAX_ENDED, MAX_RUNNING
from tests.server.building import (
    Running,
    app_client,
    chat_body,
    live_server,
    soft_prompt_files,
    tiny_settings,
    wait_until,
)
from tests.server.conftest import Served
from tests.server.sources.bucket_server import bucket_server
from tests.server.sources.hub_server import COMMIT, Hub, small_hub
from tests.server.sources.test_roots import write_files
from tests.server.test_error_table import HOSTILE

ADAPTERS = "/v1/adapters"
JOBS = "/v1/adapters/jobs"
ENDED = ("ready", "refused", "cancelled")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with small_hub(monkeypatch) as hub:
        yield hub


def allowing(settings: Settings, root: Path) -> Settings:
    return settings.model_copy(update={"adapter_roots": (root,), "adapter_sources": ("hf://org", "s3://team/adapters")})


@pytest.fixture
async def served_sources(settings: Settings, root: Path) -> AsyncGenerator[Served]:
    async with app_client(allowing(settings, root)) as started:
        yield started


@pytest.fixture
async def client(served_sources: Served) -> httpx.AsyncClient:
    return served_sources[1]


async def start(client: httpx.AsyncClient, name: str, source: object, **fields: Any) -> httpx.Response:
    return await client.post(ADAPTERS, json={"name": name, "source": str(source)} | fields)


async def ended(client: httpx.AsyncClient, response: httpx.Response) -> dict[str, Any]:
    """The job that a response began, when it has ended."""
    assert response.status_code == 202, response.text
    assert response.headers["location"] == f"{JOBS}/{response.json()['id']}"
    while (job := (await client.get(response.headers["location"])).json())["state"] not in ENDED:
        await asyncio.sleep(0.005)
    assert job["ended"] >= job["created"]
    return dict(job)


async def error_of(client: httpx.AsyncClient, response: httpx.Response) -> dict[str, Any]:
    job = await ended(client, response)
    assert (job["state"], job["digest"]) == ("refused", None)
    return dict(job["error"])


async def test_a_directory_of_the_server(client: httpx.AsyncClient, root: Path) -> None:
    path = write_files(root / "support", soft_prompt_files(1))
    response = await start(client, "support", path)
    assert response.json()["state"] == "fetching"
    job = await ended(client, response)
    assert (job["object"], job["state"], job["error"]) == ("adapter.job", "ready", None)
    assert job["bytes_fetched"] == job["bytes_total"] == sum(map(len, soft_prompt_files(1).by_name().values()))
    assert job["source"] == job["resolved"] == str(path)
    assert job["digest"] == (await client.get(f"{ADAPTERS}/support")).json()["digest"]
    assert (await client.post("/v1/chat/completions", json=chat_body("support"))).status_code == 200
    assert (await client.get(JOBS)).json() == {"object": "list", "data": [job]}


async def test_the_hub_and_its_commit(client: httpx.AsyncClient, hub: Hub) -> None:
    hub.put_adapter("org/support", soft_prompt_files(1))
    job = await ended(client, await start(client, "support", "hf://org/support@v2"))
    assert (job["state"], job["source"]) == ("ready", "hf://org/support@v2")
    assert job["resolved"] == f"hf://org/support@{COMMIT}"
    hub.put_adapter("org/support", soft_prompt_files(2))
    again = await ended(client, await start(client, "support", "hf://org/support"))
    versions = (await client.get(f"{ADAPTERS}/support")).json()["versions"]
    assert [version["digest"] for version in versions] == [job["digest"], again["digest"]]
    assert [version["source"] for version in versions] == [f"hf://org/support@{COMMIT}"] * 2


async def test_a_bucket(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with bucket_server(monkeypatch) as server:
        server.make_bucket("team")
        server.put_adapter("team/adapters/support", soft_prompt_files(1))
        server.put_adapter("team/secret", soft_prompt_files(2))
        job = await ended(client, await start(client, "support", "s3://team/adapters/support"))
        assert (job["state"], job["resolved"]) == ("ready", "s3://team/adapters/support")
        for outside in ("s3://team/secret", "s3://team", "s3://team/adapters/../secret", "s3://other/adapters/x"):
            response = await start(client, "support", outside)
            assert (response.status_code, response.json()["error"]["param"]) == (400, "source")


async def test_what_is_not_allowed_is_refused_at_once(served: Served, root: Path) -> None:
    client = served[1]
    for source in (
        write_files(root / "a", soft_prompt_files(1)),
        "hf://org/a",
        "s3://team/a",
        "gs://team/a",
        "az://t0/a",
    ):
        response = await start(client, "support", source)
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (400, "source_refused", "source")
        assert "--adapter-" in error["message"]
    for source in ("http://127.0.0.1/", "file:///etc/passwd", "support", "s3://team:80/x"):
        assert (await start(client, "support", source)).json()["error"]["code"] == "source_refused"
    assert (await client.get(JOBS)).json()["data"] == []


@pytest.mark.parametrize("name", ["../evil", "tiny-llama", "a@b", "jobs", "a" * 64, ""])
async def test_what_is_no_name_is_refused_at_once(client: httpx.AsyncClient, root: Path, name: str) -> None:
    response = await start(client, name, write_files(root / "a", soft_prompt_files(1)))
    assert (response.status_code, response.json()["error"]["param"]) == (400, "name")


async def test_bodies_that_are_none(client: httpx.AsyncClient) -> None:
    for kind, content in HOSTILE.items():
        response = await client.post(ADAPTERS, content=content, headers={"content-type": "application/json"})
        assert (response.status_code, set(response.json()["error"])) == (400, {"message", "type", "param", "code"}), (
            kind
        )
    for fields, param in (
        ({"name": "a"}, "source"),
        ({"name": 1, "source": "/a"}, "name"),
        ({"name": "a", "source": "/a", "endpoint": "http://x"}, "endpoint"),
        ({"name": "a", "source": "/" + "a" * 5000}, "source"),
        ({"name": "a", "source": ["/a"]}, "source"),
    ):
        response = await client.post(ADAPTERS, json=fields)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    form = await client.post(ADAPTERS, data={"name": "a", "source": "/a"})
    assert (form.status_code, "JSON" in form.json()["error"]["message"]) == (415, True)


async def test_refusals_name_their_field_and_limit(client: httpx.AsyncClient, root: Path, hub: Hub) -> None:
    write_files(root / "good", soft_prompt_files(1))
    await ended(client, await start(client, "good", root / "good"))
    assert (await client.patch(f"{ADAPTERS}/good", json={"alias": "other"})).status_code == 200
    hub.put_adapter("org/big", soft_prompt_files(1), **{"README.md": bytes(MAX_FILE_BYTES["README.md"] + 1)})
    big = await error_of(client, await start(client, "a", "hf://org/big"))
    assert (big["code"], big["param"]) == ("adapter_too_large", "README.md")
    assert str(MAX_FILE_BYTES["README.md"]) in big["message"]
    (root / "empty").mkdir()
    wrong = AdapterFiles(b"{}", soft_prompt_files(1).weights)
    for name, source, code, param in (
        ("a", root / "empty", "adapter_invalid", "adapter_config.json"),
        ("a", root / "nowhere", "source_unavailable", "source"),
        ("a", write_files(root / "wrong", wrong), "adapter_invalid", "adapter_config.json"),
        ("a", "hf://org/nobody", "source_unavailable", "source"),
        ("other", root / "good", "adapter_in_use", "name"),
    ):
        error = await error_of(client, await start(client, name, source))
        assert (error["code"], error["param"]) == (code, param), error
    assert {adapter["id"] for adapter in (await client.get(ADAPTERS)).json()["data"]} == {"good"}


async def test_links_lead_nowhere(client: httpx.AsyncClient, root: Path, tmp_path: Path) -> None:
    outside = write_files(tmp_path / "outside", soft_prompt_files(1))
    (root / "link").symlink_to(outside)
    assert (await error_of(client, await start(client, "a", root / "link")))["code"] == "source_unavailable"


async def test_a_job_can_be_cancelled_and_the_name_stays(client: httpx.AsyncClient, hub: Hub) -> None:
    hub.put_adapter("org/support", soft_prompt_files(1))
    hub.gate.clear()
    response = await start(client, "support", "hf://org/support")
    path = response.headers["location"]
    while not (await client.get(path)).json()["bytes_fetched"]:
        await asyncio.sleep(0.005)
    half = (await client.get(path)).json()
    assert (half["state"], half["digest"], half["ended"]) == ("fetching", None, None)
    assert 0 < half["bytes_fetched"] < half["bytes_total"]
    cancelled = (await client.delete(path)).json()
    assert (cancelled["state"], cancelled["error"]) == ("cancelled", None)
    hub.gate.set()
    assert (await client.delete(path)).json() == (await client.get(path)).json() == cancelled
    assert (await client.get(f"{ADAPTERS}/support")).status_code == 404


async def test_a_job_can_be_cancelled_before_it_has_begun(served_sources: Served, root: Path) -> None:
    jobs = served_sources[0].app.state.parts.jobs

    async def publish(name: str, _: AdapterFiles, __: str) -> str:
        raise AssertionError(name)

    for _ in range(2 * MAX_RUNNING):
        job = await jobs.cancel(jobs.start("support", str(write_files(root / "a", soft_prompt_files(1))), publish).id)
        assert (job.state, job.ended is None) == ("cancelled", False)
        shutil.rmtree(root / "a")


async def test_cancelling_after_the_store_has_begun_is_too_late(
    served_sources: Served, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, client = served_sources
    write_files(root / "a", soft_prompt_files(1))
    begun, go_on, publish = asyncio.Event(), asyncio.Event(), running.services.registry.publish
    loop = asyncio.get_running_loop()

    def slow(*arguments: Any, **named: Any) -> Any:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
        return publish(*arguments, **named)

    monkeypatch.setattr(running.services.registry, "publish", slow)
    response = await start(client, "support", root / "a")
    await begun.wait()
    assert (await client.get(response.headers["location"])).json()["state"] == "verifying"
    cancelling = asyncio.create_task(client.delete(response.headers["location"]))
    await asyncio.sleep(0.05)
    assert not cancelling.done()
    go_on.set()
    job = (await cancelling).json()
    assert job["state"] == "ready"
    assert (await client.get(f"{ADAPTERS}/support")).json()["digest"] == job["digest"]


async def test_so_many_at_once_and_so_many_remembered(client: httpx.AsyncClient, root: Path, hub: Hub) -> None:
    hub.put_adapter("org/support", soft_prompt_files(1))
    hub.gate.clear()
    running = [await start(client, f"a{number}", "hf://org/support") for number in range(MAX_RUNNING)]
    write_files(root / "a", soft_prompt_files(1))
    busy = await start(client, "more", root / "a")
    assert (busy.status_code, busy.json()["error"]["code"]) == (503, "jobs_busy")
    assert busy.headers["retry-after"] == "1"
    for response in running:
        assert (await client.delete(response.headers["location"])).json()["state"] == "cancelled"
    for _ in range(MAX_ENDED):
        last = await ended(client, await start(client, "none", root / "nowhere"))
    listed = (await client.get(JOBS)).json()["data"]
    assert (len(listed), listed[-1]) == (MAX_ENDED, last)
    forgotten = await client.get(running[0].headers["location"])
    assert (forgotten.status_code, forgotten.json()["error"]["code"]) == (404, "job_not_found")


async def test_only_admin_keys_see_and_start_jobs(tiny_base: Path, tmp_path: Path, root: Path) -> None:
    keys = {"api_keys": (SecretStr("chat"),), "admin_keys": (SecretStr("admin"),)}
    path = write_files(root / "a", soft_prompt_files(1))
    async with app_client(tiny_settings(tiny_base, tmp_path / "store", adapter_roots=(root,), **keys)) as (_, client):
        for key, status in (("chat", 403), ("wrong", 401), ("admin", 202)):
            client.headers["authorization"] = f"Bearer {key}"
            response = await start(client, "support", root / "a")
            assert response.status_code == status
            assert (await client.get(JOBS)).status_code == (200 if status == 202 else status)
        assert (await ended(client, response))["state"] == "ready"
        for key, source in (("admin", str(path)), ("chat", None)):
            record = await client.get(f"{ADAPTERS}/support", headers={"authorization": f"Bearer {key}"})
            assert record.json()["versions"][0]["source"] == source


async def test_no_litter_and_no_waiting_when_the_server_stops(settings: Settings, root: Path, hub: Hub) -> None:
    hub.put_adapter("org/support", soft_prompt_files(1))
    hub.gate.clear()
    async with app_client(allowing(settings, root)) as (running, client):
        path = (await start(client, "support", "hf://org/support")).headers["location"]
        while not (await client.get(path)).json()["bytes_fetched"]:
            await asyncio.sleep(0.005)
        jobs = running.app.state.parts.jobs
    assert [job.state for job in jobs.all()] == ["cancelled"]
    assert not [file for file in settings.store.rglob("*") if file.is_file() and file.name != "lock"]


def test_a_stream_goes_on_while_a_slow_download_runs(settings: Settings, root: Path, hub: Hub) -> None:
    hub.put_adapter("org/support", soft_prompt_files(1))
    hub.gate.clear()
    with live_server(allowing(settings, root)) as (running, _), httpx.Client(base_url=running.url) as client:
        jobs = [
            client.post(ADAPTERS, json={"name": f"a{number}", "source": "hf://org/support"}).headers["location"]
            for number in range(MAX_RUNNING)
        ]
        wait_until(lambda: all(client.get(job).json()["bytes_fetched"] for job in jobs))
        for _ in range(3):
            body = chat_body("tiny-llama", stream=True, ignore_eos=True, max_tokens=40)
            with client.stream("POST", "/v1/chat/completions", json=body) as stream:
                lines = [line for line in stream.iter_lines() if line.startswith("data: ")]
            assert lines[-1] == "data: [DONE]"
            assert len(lines) > 10
        assert {client.get(job).json()["state"] for job in jobs} == {"fetching"}
        hub.gate.set()
        wait_until(lambda: {client.get(job).json()["state"] for job in jobs} == {"ready"})
        assert client.post("/v1/chat/completions", json=chat_body("a0")).status_code == 200


def test_an_adapter_named_jobs_is_never_made(live: Running) -> None:
    with httpx.Client(base_url=live.url) as client:
        files = {name: (name, content) for name, content in soft_prompt_files(1).by_name().items()}
        refused = client.post(ADAPTERS, data={"name": "jobs"}, files=files)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "name")
        assert client.post(ADAPTERS, data={"name": "a"}, files=files).status_code == 201
        alias = client.patch(f"{ADAPTERS}/a", json={"alias": "jobs"})
        assert (alias.status_code, alias.json()["error"]["code"]) == (400, "adapter_name_invalid")
