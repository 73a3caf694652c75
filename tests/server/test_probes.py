"""Probes are replayed before a name moves: what is verified, refused, kept, warned of, and what streams see of it."""

import asyncio
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from adapters.files import AdapterFiles
from adapters.manifest import parse_manifest_draft
from adapters.probes import Probe
from adapters.store import AdapterStore
from server.config import Settings, SettingsError, load_settings
from tests.adapters.probed import probed_files, unchanged_prompts, with_probes
from tests.server.building import MAX_MODEL_LEN, app_client, chat_body, multipart, soft_prompt_files, tiny_settings
from tests.server.conftest import Served

ADAPTERS = "/v1/adapters"


async def _upload(client: httpx.AsyncClient, name: str, files: AdapterFiles) -> httpx.Response:
    return await client.post(ADAPTERS, data={"name": name}, files=multipart(files))


def _probes_of(files: AdapterFiles) -> tuple[Probe, ...]:
    assert files.manifest is not None
    probes = parse_manifest_draft(files.manifest).probes
    assert probes is not None
    return probes.items


def _with_other_weights(files: AdapterFiles) -> AdapterFiles:
    return replace(files, weights=soft_prompt_files(99).weights)


async def test_a_good_adapter_is_verified_and_stays_so_after_a_restart(settings: Settings) -> None:
    async with app_client(settings) as (_, client):
        response = await _upload(client, "team", probed_files(seed=1))
        found = response.json()["verification"]
        assert (response.status_code, found["state"], found["engine"]) == (201, "verified", "float32")
        assert (found["num_probes"], found["num_replayed"], found["num_equal"]) == (8, 8, 8)
        assert found["largest_difference"] < 1e-4
        assert (found["probe"], found["detail"]) == (None, "")
    async with app_client(settings) as (_, client):
        assert (await client.get(f"{ADAPTERS}/team")).json()["verification"] == found


async def test_an_adapter_that_answers_otherwise_is_refused_and_the_name_stays(served: Served) -> None:
    running, client = served
    good = probed_files(seed=1)
    first = (await _upload(client, "team", good)).json()
    response = await _upload(client, "team", _with_other_weights(good))
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "adapter_mismatch", "hotprompt.json")
    assert "probe 0: " in error["message"]
    assert (await client.get(f"{ADAPTERS}/team")).json() == first
    assert (await _upload(client, "other", _with_other_weights(good))).status_code == 400
    assert (await client.get(f"{ADAPTERS}/other")).status_code == 404
    assert [record.name for record in running.services.registry.store.names()] == ["team"]


async def test_it_is_kept_and_marked_where_the_server_is_told_so(tiny_base: Path, tmp_path: Path) -> None:
    settings = tiny_settings(tiny_base, tmp_path / "store", on_probe_mismatch="keep")
    async with app_client(settings) as (_, client):
        response = await _upload(client, "team", _with_other_weights(probed_files(seed=1)))
        found = response.json()["verification"]
        assert (response.status_code, found["state"], found["probe"]) == (201, "mismatch", 0)
        assert (await client.post("/v1/chat/completions", json=chat_body("team"))).status_code == 200
        assert (await _upload(client, "team", probed_files(seed=1))).json()["verification"]["state"] == "verified"


async def test_an_adapter_without_effect_is_served_with_a_warning(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    _, client = served
    files = probed_files(seed=3, prompts=unchanged_prompts(seed=3), max_tokens=1)
    response = await _upload(client, "team", files)
    found = response.json()["verification"]
    assert (response.status_code, found["state"]) == (201, "no_effect")
    assert "equal the base model's" in found["detail"]
    assert "no effect" in caplog.text


async def test_adapters_without_probes_are_unverified(served: Served) -> None:
    _, client = served
    found = (await _upload(client, "team", soft_prompt_files(1))).json()["verification"]
    assert (found["state"], found["num_probes"], found["detail"]) == ("unverified", 0, "the adapter has no probes")


async def test_probes_that_do_not_fit_this_model_are_left_out(served: Served) -> None:
    _, client = served
    good = probed_files(seed=1)
    known = _probes_of(good)
    long = known[0].model_copy(update={"prompt_ids": (1,) * MAX_MODEL_LEN})
    strange = known[0].model_copy(update={"prompt_ids": (1_000_000,)})
    some = (await _upload(client, "some", with_probes(good, (long, strange, *known[2:])))).json()["verification"]
    assert (some["state"], some["num_probes"], some["num_replayed"]) == ("verified", 8, 6)
    none = (await _upload(client, "none", with_probes(good, (long, strange)))).json()["verification"]
    assert (none["state"], none["num_probes"], none["num_replayed"]) == ("unverified", 2, 0)


async def test_what_a_trainer_published_is_verified_when_asked(served: Served, settings: Settings) -> None:
    _, client = served
    store = AdapterStore(settings.store)
    store.publish("good", probed_files(seed=1))
    store.publish("bad", _with_other_weights(probed_files(seed=1)))
    found = (await client.get(f"{ADAPTERS}/good")).json()["verification"]
    assert (found["state"], found["engine"], found["num_probes"]) == ("unverified", None, 8)
    for name, state in (("good", "verified"), ("bad", "mismatch")):
        record = (await client.post(f"{ADAPTERS}/{name}/verify")).json()
        assert record["verification"]["state"] == state
        assert (await client.get(f"{ADAPTERS}/{name}")).json() == record
    assert (await client.post(f"{ADAPTERS}/nobody/verify")).status_code == 404


async def test_a_roll_back_replays_what_no_server_has_replayed(served: Served, settings: Settings) -> None:
    _, client = served
    store = AdapterStore(settings.store)
    bad = store.publish("team", _with_other_weights(probed_files(seed=1))).manifest.digest
    good = store.publish("team", probed_files(seed=2)).manifest.digest
    now = (await _upload(client, "team", soft_prompt_files(1))).json()["digest"]
    refused = await client.patch(f"{ADAPTERS}/team", json={"rollback": bad})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "adapter_mismatch")
    assert (await client.get(f"{ADAPTERS}/team")).json()["digest"] == now
    record = (await client.patch(f"{ADAPTERS}/team", json={"rollback": good})).json()
    assert (record["digest"], record["verification"]["state"]) == (good, "verified")


async def test_a_canary_is_replayed_before_it_answers(served: Served, settings: Settings) -> None:
    _, client = served
    bad = AdapterStore(settings.store).publish("team", _with_other_weights(probed_files(seed=1))).manifest.digest
    now = (await _upload(client, "team", soft_prompt_files(1))).json()
    refused = await client.patch(f"{ADAPTERS}/team", json={"canary": {"digest": bad, "percent": 5}})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "adapter_mismatch")
    assert (await client.get(f"{ADAPTERS}/team")).json() == now


async def test_bfloat16_is_held_to_what_rounding_explains(tiny_base: Path, tmp_path: Path) -> None:
    settings = tiny_settings(tiny_base, tmp_path / "store", dtype="bfloat16")
    async with app_client(settings) as (_, client):
        good = probed_files(seed=1)
        found = (await _upload(client, "team", good)).json()["verification"]
        assert (found["state"], found["engine"]) == ("verified", "bfloat16")
        assert 0 < found["largest_difference"] < 0.15
        assert (await _upload(client, "team", _with_other_weights(good))).status_code == 400


async def test_a_running_stream_is_the_same_beside_replays(served: Served) -> None:
    running, client = served
    body = chat_body("tiny-llama", max_tokens=200, ignore_eos=True)
    alone = (await client.post("/v1/chat/completions", json=body)).json()
    beside = asyncio.create_task(client.post("/v1/chat/completions", json=body))
    await _upload(client, "team", probed_files(seed=1))
    assert (await beside).json()["choices"] == alone["choices"]
    stats = running.engine.stats()
    assert (stats.num_running, stats.num_failed, stats.num_aborted) == (0, 0, 0)


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(SettingsError, match="--on-probe-mismatch"):
        load_settings(on_probe_mismatch="maybe")
