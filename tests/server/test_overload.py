"""More requests than there are places: some hear 503 at once and when to come again, all others are answered."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.building import app_client, chat_body, events_of, soft_prompt_files, tiny_settings, wait_until_async

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize("stream", [False, True])
async def test_beyond_batch_and_queue_requests_are_refused_and_none_is_lost(
    tiny_base: Path,
    tmp_path: Path,
    stream: bool,  # noqa: FBT001
) -> None:
    settings = tiny_settings(tiny_base, tmp_path / "store", max_num_seqs=2, max_num_waiting=3)
    async with app_client(settings) as (running, client):
        body = chat_body("tiny-llama", ignore_eos=True, max_tokens=200, stream=stream)
        answers = await asyncio.gather(*(client.post(CHAT, json=body) for _ in range(30)))
        statuses = Counter(answer.status_code for answer in answers)
        assert set(statuses) == {200, 503}
        assert statuses[200] >= 5
        for answer in answers:
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) >= 1
                assert answer.json()["error"]["code"] == "engine_overloaded"
            else:
                _check_whole(answer, stream=stream)
        stats = running.engine.stats()
        assert (stats.num_accepted, stats.num_finished) == (statuses[200], statuses[200])
        assert (stats.num_running, stats.num_waiting, stats.num_free_blocks) == (0, 0, stats.num_blocks)
        assert (await client.post(CHAT, json=body)).status_code == 200


def _check_whole(answer: httpx.Response, *, stream: bool) -> None:
    """An answer that came to its end."""
    if stream:
        events: list[Any] = events_of(answer.text)
        assert events[-1] == "[DONE]"
        assert events[-2]["choices"][0]["finish_reason"] == "length"
    else:
        assert answer.json()["usage"]["completion_tokens"] == 200


async def test_a_refused_request_reads_nothing_from_the_store(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(tiny_base, tmp_path / "store", max_num_seqs=1, max_num_waiting=1)
    async with app_client(settings) as (running, client):
        running.services.registry.publish("team", soft_prompt_files(1))
        body = chat_body("tiny-llama", ignore_eos=True, max_tokens=800)
        busy = [asyncio.create_task(client.post(CHAT, json=body)) for _ in range(2)]
        await wait_until_async(lambda: running.engine.stats().num_running == 1)
        reads: list[str] = []
        monkeypatch.setattr(running.services.registry.store, "lookup", reads.append)
        assert (await client.post(CHAT, json=chat_body("team"))).status_code == 503
        assert reads == []
        assert [answer.status_code for answer in await asyncio.gather(*busy)] == [200, 200]


async def test_embeddings_beyond_the_setting_leave_memory(tiny_base: Path, tmp_path: Path) -> None:
    settings = tiny_settings(tiny_base, tmp_path / "store", adapter_memory=2 * 5 * 64 * 4)
    async with app_client(settings) as (running, client):
        for seed in range(4):
            running.services.registry.publish(f"team{seed}", soft_prompt_files(seed))
        for name in ("team1", "team0", "team2"):
            assert (await client.post(CHAT, json=chat_body(name))).status_code == 200
        shown = {entry["id"]: entry["resident"] for entry in (await client.get("/v1/adapters")).json()["data"]}
        assert shown == {"team0": True, "team1": False, "team2": True, "team3": False}
