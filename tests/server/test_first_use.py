"""What is done before the first request is no request: nothing counts it, and no base model's template can stop it."""

import httpx
import pytest

from adapters.errors import ChatFormatError
from server.config import Settings
from server.text.prompts import EncodedPrompt, PromptMaker
from tests.server.building import Running, app_client
from tests.server.telemetry.scraping import scrape


async def test_nothing_is_counted(served: tuple[Running, httpx.AsyncClient]) -> None:
    running, client = served
    stats = running.engine.stats()
    assert (stats.num_accepted, stats.num_prefix_tokens_asked) == (0, 0)
    now = await scrape(client)
    assert now.value("hotprompt_requests_accepted_total") == 0
    assert now.labels("hotprompt_http_requests_total") == []


async def test_every_route_is_built(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with app_client(settings) as (_, client):

        def refuse(*_: object) -> None:
            raise AssertionError("a route is worked out while a request waits")

        monkeypatch.setattr("fastapi.routing._EffectiveRouteContext.from_api_route", refuse)
        assert (await client.get("/nowhere")).status_code == 404


async def test_a_template_that_refuses_the_conversation_does_not_stop_the_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> EncodedPrompt:
        raise ChatFormatError("messages: a system message is wanted")

    monkeypatch.setattr(PromptMaker, "encode", refuse)
    async with app_client(settings) as (_, client):
        assert (await client.get("/ready")).status_code == 200
