"""vLLM's calls: what they load, what they answer, and that no path leads out of the roots."""

import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.files import AdapterFiles
from server.config import Settings
from tests.server.building import app_client, chat_body, soft_prompt_files
from tests.server.conftest import Served


def write(files: AdapterFiles, path: Path) -> Path:
    path.mkdir(parents=True)
    for name, content in files.by_name().items():
        (path / name).write_bytes(content)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
async def client(settings: Settings, root: Path) -> AsyncGenerator[httpx.AsyncClient]:
    async with app_client(settings.model_copy(update={"adapter_roots": (root,)})) as (_, client):
        yield client


async def load(client: httpx.AsyncClient, name: str, path: object, **fields: Any) -> httpx.Response:
    return await client.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(path)} | fields)


async def unload(client: httpx.AsyncClient, name: str) -> httpx.Response:
    return await client.post("/v1/unload_lora_adapter", json={"lora_name": name})


async def test_the_life_of_an_adapter(client: httpx.AsyncClient, root: Path) -> None:
    first, second = (write(soft_prompt_files(seed), root / "team" / str(seed)) for seed in (1, 2))
    loaded = await load(client, "team", first)
    assert (loaded.status_code, loaded.text) == (200, "Success: LoRA adapter 'team' added successfully.")
    assert (await client.post("/v1/chat/completions", json=chat_body("team"))).status_code == 200
    for again in (first, second):
        refused = (await load(client, "team", again)).json()["error"]
        assert (refused["param"], "has already been loaded" in refused["message"]) == ("lora_name", True)
    assert (await load(client, "team", second, load_inplace=True)).status_code == 200
    assert len((await client.get("/v1/adapters/team")).json()["versions"]) == 2
    unloaded = await unload(client, "team")
    assert (unloaded.status_code, unloaded.text) == (200, "Success: LoRA adapter 'team' removed successfully.")
    assert (await unload(client, "team")).status_code == 404
    assert (await client.post("/v1/chat/completions", json=chat_body("team"))).status_code == 404


async def test_no_path_leads_out_of_the_roots(client: httpx.AsyncClient, root: Path, tmp_path: Path) -> None:
    outside = write(soft_prompt_files(1), tmp_path / "outside")
    inside = write(soft_prompt_files(1), root / "inside")
    (root / "link").symlink_to(outside)
    weights = inside / "adapter_model.safetensors"
    (tmp_path / "moved").write_bytes(weights.read_bytes())
    linked = write(soft_prompt_files(1), root / "linked")
    (linked / weights.name).unlink()
    (linked / weights.name).symlink_to(tmp_path / "moved")
    piped = write(soft_prompt_files(1), root / "piped")
    (piped / weights.name).unlink()
    os.mkfifo(piped / weights.name)
    for path in (
        outside,
        f"{root}/../outside",
        f"{root}/inside/../../outside",
        root / "link",
        root / "nowhere",
        root / "inside" / weights.name,
        linked,
        piped,
        "inside",
        f"{root}/in\0side",
        f"{root}/" + "a/" * 2000,
        "file://" + str(inside),
    ):
        response = await load(client, "team", path)
        assert response.status_code == 400, path
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert (await client.get("/v1/adapters")).json()["data"] == []
    assert (await load(client, "team", inside)).status_code == 200


async def test_without_roots_nothing_is_read(served: Served, root: Path) -> None:
    _, client = served
    response = await load(client, "team", write(soft_prompt_files(1), root / "inside"))
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "lora_path")
    assert "--adapter-roots" in error["message"]


@pytest.mark.parametrize("name", ["../evil", "tiny-llama", "a@b", "-a", "a" * 64, ""])
async def test_what_is_no_name_is_refused(client: httpx.AsyncClient, root: Path, name: str) -> None:
    response = await load(client, name, write(soft_prompt_files(1), root / "inside"))
    assert (response.status_code, response.json()["error"]["param"]) == (400, "lora_name")


async def test_fields_that_are_not_honoured_are_refused(client: httpx.AsyncClient, root: Path) -> None:
    inside = write(soft_prompt_files(1), root / "inside")
    assert (await load(client, "team", inside, base_model_name="x")).json()["error"]["param"] == "base_model_name"
    body = {"lora_name": "team", "lora_int_id": 1}
    assert (await client.post("/v1/unload_lora_adapter", json=body)).json()["error"]["param"] == "lora_int_id"
    assert (await unload(client, "tiny-llama")).status_code == 400
