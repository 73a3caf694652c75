"""Opening and starting a server: limits from the model, and what is warm before the first request."""

from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from transformers import AutoConfig

from adapters.base_model import open_base_model
from adapters.registry import AdapterRegistry
from adapters.store import AdapterStore
from server.api.deps import Parts
from server.app import create_app
from server.config import Settings, SettingsError
from server.services import build_services, choose_max_model_len
from tests.server.building import app_client, chat_body, multipart, soft_prompt_files, tiny_settings, wait_until_async
from tests.tiny import EOS_ID, MAX_POSITIONS, save_tiny_base


def test_length_is_the_models_context_or_what_was_asked_for(tiny_base: Path) -> None:
    config = AutoConfig.from_pretrained(tiny_base)
    assert choose_max_model_len(None, config) == MAX_POSITIONS
    assert choose_max_model_len(100, config) == 100
    with pytest.raises(SettingsError, match="--max-model-len 1025: the model's context is 1024 tokens"):
        choose_max_model_len(1025, config)


def test_a_model_without_a_longest_position_gets_a_default(tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(save_tiny_base("bloom", tmp_path / "tiny-bloom"))
    assert choose_max_model_len(None, config) == 2048
    assert choose_max_model_len(8000, config) == 8000


def test_end_of_sequence_ends_an_answer(settings: Settings) -> None:
    assert build_services(settings).stop_token_ids == {EOS_ID}


async def test_pinned_adapters_are_computed_before_the_first_request(tiny_base: Path, tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    base = open_base_model(str(tiny_base), home=tmp_path)
    for number, name in enumerate(("first", "second", "loose")):
        AdapterRegistry(store, base.identity).publish(name, soft_prompt_files(number))
    for name in ("first", "second"):
        store.pin(name, pinned=True)
    async with app_client(tiny_settings(tiny_base, tmp_path / "store")) as (running, client):
        stats = running.engine.stats()
        assert (stats.num_finished, stats.num_pinned_blocks) == (2, 2)
        shown = {entry["id"]: entry["resident"] for entry in (await client.get("/v1/adapters")).json()["data"]}
        assert shown == {"first": True, "second": True, "loose": False}


async def test_a_pinned_adapter_that_cannot_be_served_stops_nobody(tiny_base: Path, tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    for name, length in (("long", 600), ("short", 5)):
        store.publish(name, soft_prompt_files(1, num_virtual_tokens=length))
        store.pin(name, pinned=True)
    digest = store.publish("damaged", soft_prompt_files(2)).manifest.digest
    store.pin("damaged", pinned=True)
    (store.path_of(digest) / "adapter_model.safetensors").write_bytes(b"")
    async with app_client(tiny_settings(tiny_base, tmp_path / "store", max_model_len=512)) as (_, client):
        answers = {
            name: await client.post("/v1/chat/completions", json=chat_body(name))
            for name in ("long", "short", "damaged")
        }
        assert {name: answer.status_code for name, answer in answers.items()} == {
            "long": 400,
            "short": 200,
            "damaged": 500,
        }
        assert answers["damaged"].json()["error"]["code"] == "adapter_damaged"
        assert str(tmp_path) not in answers["damaged"].text
        await wait_until_async(lambda: not store.path_of(digest).exists())
        assert (tmp_path / "store/quarantine" / digest / "hotprompt.json").exists()
        assert (await client.get("/v1/adapters/damaged")).status_code == 500
        again = await client.post("/v1/chat/completions", json=chat_body("damaged"))
        assert again.json() == answers["damaged"].json()
        listed = (await client.get("/v1/adapters")).json()
        assert [record["id"] for record in listed["data"]] == ["long", "short"]
        assert [damaged["id"] for damaged in listed["damaged"]] == ["damaged"]
        assert "quarantine: publish it again" in listed["damaged"][0]["problem"]
        await client.post("/v1/adapters", data={"name": "damaged"}, files=multipart(soft_prompt_files(2)))
        assert (await client.post("/v1/chat/completions", json=chat_body("damaged"))).status_code == 200
        assert (await client.get("/v1/adapters")).json()["damaged"] == []


async def test_a_start_clears_what_a_crash_left(tiny_base: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = AdapterStore(root)
    digest = store.publish("team", soft_prompt_files(1)).manifest.digest
    (root / "tmp/version-half").mkdir()
    (root / "versions" / ("1" * 64)).mkdir()
    async with app_client(tiny_settings(tiny_base, root)):
        assert list((root / "tmp").iterdir()) == []
        assert store.digests() == [digest]


async def test_the_table_of_grammars_is_there_before_the_first_request(settings: Settings) -> None:
    async with app_client(settings) as (running, _):
        parts: Parts = running.app.state.parts
        assert parts.grammars.is_prepared


async def test_a_model_that_can_have_no_forms_is_served_without_them(settings: Settings) -> None:
    services = replace(build_services(settings), stop_token_ids=frozenset())
    app = create_app(services, settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        plain = await client.post("/v1/chat/completions", json=chat_body("tiny-llama"))
        body = chat_body("tiny-llama", response_format={"type": "json_object"})
        refused = await client.post("/v1/chat/completions", json=body)
    assert (plain.status_code, refused.status_code) == (200, 400)
    assert refused.json()["error"]["code"] == "structure_unsupported"
