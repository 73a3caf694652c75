"""The model card over HTTP."""

from dataclasses import replace
from pathlib import Path

import httpx
from pydantic import SecretStr

from tests.server.building import app_client, multipart, soft_prompt_files, tiny_settings
from tests.server.conftest import Served

ADAPTERS = "/v1/adapters"


async def _upload(client: httpx.AsyncClient, name: str, seed: int, card: str | None) -> str:
    files = replace(soft_prompt_files(seed), card=None if card is None else card.encode())
    response = await client.post(ADAPTERS, data={"name": name}, files=multipart(files))
    digest: str = response.json()["digest"]
    return digest


async def test_each_version_has_its_own_card(served: Served) -> None:
    _, client = served
    first = await _upload(client, "team", 1, "# 一 one")
    await _upload(client, "team", 2, "# two")
    await client.patch(f"{ADAPTERS}/team", json={"alias": "prod"})
    for name, card in (("team", "# two"), ("prod", "# two"), (f"team@{first[:8]}", "# 一 one")):
        answer = await client.get(f"{ADAPTERS}/{name}/card")
        assert (answer.status_code, answer.text) == (200, card)
        assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_what_has_no_card_is_not_found(served: Served) -> None:
    _, client = served
    await _upload(client, "plain", 1, None)
    answer = await client.get(f"{ADAPTERS}/plain/card")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "no model card" in answer.json()["error"]["message"]
    for name, status in (("nobody", 404), ("tiny-llama", 404), ("a b", 400), ("plain@x", 400)):
        assert (await client.get(f"{ADAPTERS}/{name}/card")).status_code == status


async def test_a_key_for_other_models_does_not_see_it(tiny_base: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text('{"keys": [{"name": "films", "key": "film-key-0123", "models": ["films"]}]}')
    settings = tiny_settings(tiny_base, tmp_path / "store", key_file=keys, admin_keys=(SecretStr("admin-key-0123"),))
    async with app_client(settings, authorization="Bearer admin-key-0123") as (_, client):
        await _upload(client, "films", 1, "# films")
        await _upload(client, "secret", 2, "# secret")
        client.headers["authorization"] = "Bearer film-key-0123"
        statuses = [(await client.get(f"{ADAPTERS}/{name}/card")).status_code for name in ("films", "secret", "nobody")]
        assert statuses == [200, 404, 404]
        hidden = (await client.get(f"{ADAPTERS}/secret/card")).json()["error"]["message"]
        assert (
            hidden.replace("secret", "nobody")
            == (await client.get(f"{ADAPTERS}/nobody/card")).json()["error"]["message"]
        )
