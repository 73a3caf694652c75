"""/v1/adapters and /v1/models: live upload, versions, changes, and everything that an upload may do wrong."""

import asyncio
import json
import resource
import socket
import zipfile
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from adapters.exporting import files_to_export
from adapters.files import AdapterFiles
from adapters.tar_format import read_tar, tar_chunks
from adapters.tensor_file import WEIGHTS_FILE
from adapters.weights import read_adapter
from tests.adapters.making import adapter_files, large_lora_files, peft_config, random_rows, tensor_bytes
from tests.server.building import Running, app_client, chat_body, multipart, soft_prompt_files, tiny_settings
from tests.server.conftest import Served
from tests.tiny import HIDDEN_SIZE

ADAPTERS = "/v1/adapters"


async def _upload(client: httpx.AsyncClient, name: str, files: AdapterFiles) -> httpx.Response:
    return await client.post(ADAPTERS, data={"name": name}, files=multipart(files))


async def _answer(client: httpx.AsyncClient, model: str, **fields: Any) -> str:
    response = await client.post("/v1/chat/completions", json=chat_body(model, ignore_eos=True, **fields))
    assert response.status_code == 200, response.text
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


async def test_an_upload_is_served_at_once_and_listed(served: Served) -> None:
    running, client = served
    response = await _upload(client, "team", soft_prompt_files(1))
    record = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == "/v1/adapters/team"
    assert (record["id"], record["kind"], record["num_virtual_tokens"]) == ("team", "prompt_tuning", 5)
    assert (record["resident"], record["pinned"], len(record["versions"])) == (True, False, 1)
    assert await _answer(client, "team") != await _answer(client, "tiny-llama")
    shown = (await client.get(f"{ADAPTERS}/team")).json()
    assert shown | {"usage": record["usage"]} == record
    assert (shown["usage"]["requests"], record["usage"]["requests"]) == (1, 0)
    assert [entry["id"] for entry in (await client.get(ADAPTERS)).json()["data"]] == ["team"]
    models = {card["id"]: card for card in (await client.get("/v1/models")).json()["data"]}
    assert set(models) == {"tiny-llama", "team"}
    assert (models["team"]["parent"], models["team"]["root"]) == ("tiny-llama", record["digest"])
    assert (await client.get("/v1/models/team")).json() == models["team"]
    assert running.engine.stats().num_finished == 3  # the virtual tokens were computed before the answer


async def test_a_new_version_answers_at_once_and_can_be_rolled_back(served: Served) -> None:
    _, client = served
    first = (await _upload(client, "team", soft_prompt_files(1))).json()["digest"]
    old = await _answer(client, "team")
    second = (await _upload(client, "team", soft_prompt_files(2))).json()
    new = await _answer(client, "team")
    assert [version["digest"] for version in second["versions"]] == [first, second["digest"]]
    assert old != new
    assert await _answer(client, f"team@{first[:12]}") == old
    rolled = await client.patch(f"{ADAPTERS}/team", json={"rollback": True})
    assert rolled.json()["digest"] == first
    assert await _answer(client, "team") == old
    await client.patch(f"{ADAPTERS}/team", json={"rollback": second["digest"][:8], "pinned": True, "alias": "prod"})
    assert await _answer(client, "prod") == new
    shown = (await client.get(f"{ADAPTERS}/prod")).json()
    assert (shown["pinned"], shown["aliases"]) == (True, ["prod"])


async def test_streams_that_run_finish_on_the_version_they_began_with(live: Running) -> None:
    async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
        await _upload(client, "team", soft_prompt_files(1))
        alone = await _answer(client, "team", max_tokens=400)
        base_alone = await _answer(client, "tiny-llama", max_tokens=400)
        body = chat_body("team", ignore_eos=True, max_tokens=400, stream=True)
        async with client.stream("POST", "/v1/chat/completions", json=body) as stream:
            events = stream.aiter_lines()
            await anext(events)
            beside = asyncio.create_task(_answer(client, "tiny-llama", max_tokens=400))
            assert (await _upload(client, "team", soft_prompt_files(2))).status_code == 201
            changed = await _answer(client, "team", max_tokens=10)
            assert (await client.delete(f"{ADAPTERS}/team")).status_code == 200
            text = "".join([piece async for piece in _contents(events)])
        assert text == alone
        assert await beside == base_alone
        assert not alone.startswith(changed)
        gone = await client.post("/v1/chat/completions", json=chat_body("team"))
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")


async def _contents(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    async for line in lines:
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content") or ""


async def test_deleting(served: Served) -> None:
    _, client = served
    await _upload(client, "team", soft_prompt_files(1))
    await client.patch(f"{ADAPTERS}/team", json={"alias": "prod"})
    assert (await client.delete(f"{ADAPTERS}/team")).status_code == 409
    assert (await client.delete("/v1/models/prod")).json()["deleted"] is True
    assert (await client.delete(f"{ADAPTERS}/team")).json() == {
        "id": "team",
        "object": "adapter",
        "deleted": True,
        "running": 0,
        "was_pinned": False,
    }
    for path in (f"{ADAPTERS}/team", "/v1/models/team"):
        assert (await client.delete(path)).status_code == 404
        assert (await client.get(path)).status_code == 404
    assert (await client.delete("/v1/models/tiny-llama")).status_code == 400


def _pickle_in_a_zip() -> bytes:
    """What torch.save writes, made by hand: a zip with a pickle in it."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    return buffer.getvalue()


def _another_base() -> bytes:
    fields = {"name": "other", "model_type": "llama", "hidden_size": HIDDEN_SIZE}
    return json.dumps({"base": fields | {"fingerprint": "0" * 64, "tokenizer_fingerprint": "0" * 64}}).encode()


GOOD_CONFIG = peft_config(num_virtual_tokens=3)
GOOD_ROWS = random_rows(width=HIDDEN_SIZE)
GOOD_WEIGHTS = tensor_bytes(GOOD_ROWS)
NOT_FINITE = GOOD_ROWS.clone()
NOT_FINITE[1, 1] = torch.nan

BAD_UPLOADS: dict[str, tuple[dict[str, Any], str]] = {
    "a pickle": ({"weights": b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."}, "adapter_model.safetensors"),
    "a pickle in a zip": ({"weights": _pickle_in_a_zip()}, "not a safetensors file"),
    "truncated": ({"weights": GOOD_WEIGHTS[:-7]}, "truncated"),
    "of a wrong width": ({"weights": tensor_bytes(random_rows(width=HIDDEN_SIZE + 1))}, "64"),
    "with NaN": ({"weights": tensor_bytes(NOT_FINITE)}, "NaN"),
    "for another base": ({"manifest": _another_base()}, "other"),
    "of a kind that is not served": ({"config": peft_config(peft_type="ADALORA")}, "ADALORA"),
    "with a config that is no JSON": ({"config": b"{"}, "JSON"),
    "of too many virtual tokens": ({"config": peft_config(num_virtual_tokens=4_000_000)}, "4096"),
    "with a manifest of wrong fields": ({"manifest": b'{"chat_format": {"template": 5}}'}, "chat_format.template"),
    "with a path in its name": ({"name": "../../evil"}, "name"),
    "with an absolute path in its name": ({"name": "/tmp/evil"}, "name"),
    "with an encoded path in its name": ({"name": "%2e%2e%2fevil"}, "name"),
    "with the base's name": ({"name": "tiny-llama"}, "base model"),
    "without a name": ({"name": ""}, "name"),
}


@pytest.mark.parametrize("kind", list(BAD_UPLOADS))
async def test_a_bad_upload_is_refused_and_all_goes_on_as_before(served: Served, kind: str) -> None:
    running, client = served
    await _upload(client, "team", soft_prompt_files(1))
    before = await _answer(client, "team")
    listed = (await client.get(ADAPTERS)).json()
    changes, said = BAD_UPLOADS[kind]
    parts = {"name": "team", "config": GOOD_CONFIG, "weights": GOOD_WEIGHTS, "manifest": None} | changes
    files = AdapterFiles(parts["config"], parts["weights"], parts["manifest"])
    response = await _upload(client, parts["name"], files)
    error = response.json()["error"]
    assert 400 <= response.status_code < 500
    assert set(error) == {"message", "type", "param", "code"}
    assert said in error["message"]
    assert "\n" not in error["message"]
    assert "Traceback" not in response.text
    assert str(running.services.registry.store.path_of("")) not in response.text
    assert (await client.get(ADAPTERS)).json() == listed
    assert await _answer(client, "team") == before


async def test_the_weights_limit_is_a_setting_that_a_refusal_names(tiny_base: Path, tmp_path: Path) -> None:
    """By the file's own size, and by the whole body's where that alone is over; a directory has the same limit."""
    (tmp_path / "root" / "large").mkdir(parents=True)
    files = large_lora_files(rank=64, num_bytes=3 << 19)
    for name, content in files.by_name().items():
        (tmp_path / "root" / "large" / name).write_bytes(content)
    small, large = {"max_adapter_size": "1MiB"}, {"max_adapter_size": "2MiB"}
    settings = [
        tiny_settings(tiny_base, tmp_path / "store", adapter_roots=(tmp_path / "root",), **each)
        for each in (small, large)
    ]
    async with app_client(settings[0]) as (_, client):
        refused = await _upload(client, "large", files)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["param"]) == (413, "adapter_too_large", WEIGHTS_FILE)
        assert "1048576" in error["message"]
        assert "--max-adapter-size" in error["message"]
        refused = await _upload(client, "large", large_lora_files(rank=64, num_bytes=8 << 20))
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (413, "body_too_large")
        for said in ("1048576", "--max-adapter-size", WEIGHTS_FILE):
            assert said in error["message"]
        body = {"lora_name": "large", "lora_path": str(tmp_path / "root" / "large")}
        refused = await client.post("/v1/load_lora_adapter", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "adapter_too_large")
    async with app_client(settings[1]) as (_, client):
        assert "model.layers" in (await _upload(client, "large", files)).json()["error"]["message"]  # taken, but unfit


async def test_an_upload_of_1_gb_is_refused_without_being_kept(live: Running) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b'--x\r\ncontent-disposition: form-data; name="adapter_model.safetensors"; filename="a"\r\n\r\n'
        for _ in range(1024):
            yield bytes(1 << 20)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert "413" in await asyncio.to_thread(_announce_1_gb, live.url)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
        try:
            response = await client.post(ADAPTERS, content=endless(), headers=headers)
            assert response.status_code == 413
            assert response.json()["error"]["code"] == "body_too_large"
        except httpx.TransportError:  # the server has answered and hung up while the rest was still being sent
            pass
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 128 * 1024  # in KiB
        assert (await client.get(ADAPTERS)).json()["data"] == []
        assert (await client.get("/health")).status_code == 200


def _announce_1_gb(url: str) -> str:
    """The status line for a body of which the server has only been told the length."""
    host, port = url.removeprefix("http://").split(":")
    head = f"POST {ADAPTERS} HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=x\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"{head}content-length: {1 << 30}\r\n\r\n--x".encode())
        return connection.recv(4096).decode().splitlines()[0]


async def test_parts_of_an_upload(served: Served) -> None:
    _, client = served
    files = multipart(soft_prompt_files(1))
    unknown = await client.post(
        ADAPTERS, data={"name": "x"}, files=files | {"adapter_model.bin": ("adapter_model.bin", b"1")}
    )
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (400, "upload_invalid")
    assert "pickle" in unknown.json()["error"]["message"]
    del files["adapter_config.json"]
    missing = await client.post(ADAPTERS, data={"name": "x"}, files=files)
    assert "adapter_config.json" in missing.json()["error"]["message"]
    nameless = await client.post(ADAPTERS, files=multipart(soft_prompt_files(1)))
    assert "name" in nameless.json()["error"]["message"]
    no_form = await client.post(ADAPTERS, content=b"x", headers={"content-type": "text/plain"})
    assert "multipart" in no_form.json()["error"]["message"]
    assert [response.status_code for response in (missing, nameless, no_form)] == [400, 400, 415]


async def test_a_change_that_is_refused_in_part_is_not_made(served: Served) -> None:
    running, client = served
    running.services.registry.store.publish("team", adapter_files(width=HIDDEN_SIZE + 1))  # as for another base
    for name in ("team", "other"):
        assert (await _upload(client, name, soft_prompt_files(1))).status_code == 201
    before = (await client.get(f"{ADAPTERS}/team")).json()
    for change, status in (
        ({"alias": "other", "pinned": True}, 409),
        ({"alias": "../x", "pinned": True}, 400),
        ({"alias": "prod", "rollback": "abcdef"}, 404),
        ({"alias": "prod", "rollback": True}, 400),
    ):
        assert (await client.patch(f"{ADAPTERS}/team", json=change)).status_code == status
        assert (await client.get(f"{ADAPTERS}/team")).json() == before


@pytest.mark.parametrize("body", [{}, {"pinned": "yes"}, {"rollback": False}, {"alias": ""}, {"colour": "red"}])
async def test_a_bad_change_is_a_400(served: Served, body: dict[str, Any]) -> None:
    _, client = served
    await _upload(client, "team", soft_prompt_files(1))
    assert (await client.patch(f"{ADAPTERS}/team", json=body)).status_code == 400


async def test_an_upload_that_does_not_fit_the_context_is_not_published(served: Served) -> None:
    running, client = served
    response = await _upload(client, "team", soft_prompt_files(1, num_virtual_tokens=2000))
    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert running.services.registry.store.names() == []


async def test_a_stopping_server_changes_nothing(served: Served) -> None:
    running, client = served
    await _upload(client, "team", soft_prompt_files(1))
    running.engine.begin_drain()
    refused = [
        await _upload(client, "team", soft_prompt_files(2)),
        await client.patch(f"{ADAPTERS}/team", json={"pinned": True}),
        await client.delete(f"{ADAPTERS}/team"),
        await client.delete("/v1/models/team"),
    ]
    assert {(response.status_code, response.headers["retry-after"]) for response in refused} == {(503, "1")}
    record = (await client.get(f"{ADAPTERS}/team")).json()
    assert (len(record["versions"]), record["pinned"]) == (1, False)


async def test_many_changes_of_one_name_at_once_leave_whole_versions(served: Served) -> None:
    _, client = served
    await _upload(client, "team", soft_prompt_files(0))
    uploads = [_upload(client, "team", soft_prompt_files(seed)) for seed in range(8)]
    answers = [_answer(client, "team", max_tokens=30) for _ in range(8)]
    responses = await asyncio.gather(*uploads, *answers)
    assert all(response.status_code == 201 for response in responses if isinstance(response, httpx.Response))
    record = (await client.get(f"{ADAPTERS}/team")).json()
    assert len(record["versions"]) == 8
    by_version = {await _answer(client, f"team@{version['digest']}", max_tokens=30) for version in record["versions"]}
    assert {answer for answer in responses if isinstance(answer, str)} <= by_version


async def test_a_version_is_exported_as_a_tar(served: Served) -> None:
    running, client = served
    first = (await _upload(client, "team", soft_prompt_files(1))).json()["digest"]
    await _upload(client, "team", soft_prompt_files(2))
    answer = await client.get(f"{ADAPTERS}/team@{first[:8]}/export")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-tar")
    assert answer.content == b"".join(tar_chunks(files_to_export(running.services.registry.store, f"team@{first}")))
    assert read_adapter("team", read_tar(BytesIO(answer.content))).manifest.digest == first
    for name, status in (("nobody", 404), ("tiny-llama", 404), ("a b", 400), ("team@x", 400)):
        assert (await client.get(f"{ADAPTERS}/{name}/export")).status_code == status
