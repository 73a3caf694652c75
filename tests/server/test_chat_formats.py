"""The chat format of an adapter in service: what it decides, what a request may override, and hostile templates."""

import asyncio
import time
from typing import Any

import httpx
import pytest

from adapters.chat_format import MAX_TEMPLATE_CHARS
from tests.server.building import chat_body, multipart, soft_prompt_files
from tests.server.conftest import Served
from tests.tiny import CHAT_TEMPLATE

ADAPTERS = "/v1/adapters"
LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


async def _upload(client: httpx.AsyncClient, name: str, **chat_format: Any) -> httpx.Response:
    files = soft_prompt_files(1, manifest={"chat_format": chat_format})
    return await client.post(ADAPTERS, data={"name": name}, files=multipart(files))


async def _chat(client: httpx.AsyncClient, model: str, text: str = "hello", **fields: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=chat_body(model, text, **fields))


async def test_template_system_prompt_and_defaults_are_the_adapters(served: Served) -> None:
    _, client = served
    fields = {"template": CHAT_TEMPLATE.replace("> ", ": "), "system_prompt": "Be brief."}
    response = await _upload(client, "team", **fields, sampling={"max_tokens": 3, "temperature": 0})
    assert response.status_code == 201, response.text
    body = {"model": "team", "messages": [{"role": "user", "content": "hi"}]}
    rendered = (await client.post("/v1/chat/completions/render", json=body)).json()
    tokens = (await client.post("/detokenize", json={"model": "team", "tokens": rendered["token_ids"]})).json()
    assert tokens["prompt"] == "system: Be brief.\nuser: hi\nassistant: "
    first = (await client.post("/v1/chat/completions", json=body | {"ignore_eos": True})).json()
    again = (await client.post("/v1/chat/completions", json=body | {"ignore_eos": True})).json()
    assert first["usage"]["completion_tokens"] == 3
    assert first["choices"] == again["choices"]  # temperature 0
    longer = await client.post("/v1/chat/completions", json=body | {"ignore_eos": True, "max_tokens": 9})
    assert longer.json()["usage"]["completion_tokens"] == 9


async def test_a_request_may_not_bring_a_template(served: Served) -> None:
    _, client = served
    refused = await _chat(client, "tiny-llama", chat_template="{{ messages }}")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "chat_template")


async def test_stop_strings_of_the_adapter_end_its_answers(served: Served) -> None:
    _, client = served
    await _upload(client, "free", template=CHAT_TEMPLATE)
    text = (await _chat(client, "free", ignore_eos=True)).json()["choices"][0]["message"]["content"]
    stop = text[5:8]
    await _upload(client, "stopped", template=CHAT_TEMPLATE, stop=[stop])
    choice = (await _chat(client, "stopped", ignore_eos=True)).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (text[: text.index(stop)], "stop")


@pytest.mark.parametrize(
    "template",
    [
        LOOP,
        "{{ 'a' * 10**9 }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% if %}",
        "{{ raise_exception('never') }}",
        "{%" * (MAX_TEMPLATE_CHARS // 2),
    ],
)
async def test_a_template_that_cannot_render_is_refused_at_upload(served: Served, template: str) -> None:
    running, client = served
    response = await _upload(client, "team", template=template)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "adapter_invalid", "hotprompt.json")
    assert error["message"].startswith("hotprompt.json: 'chat_format.template': the chat template ")
    assert running.services.registry.store.names() == []


async def test_a_template_that_turns_hostile_later_is_stopped_and_holds_nobody(served: Served) -> None:
    _, client = served
    template = "{% if messages[0].content == 'go' %}" + LOOP + "{% endif %}" + CHAT_TEMPLATE
    assert (await _upload(client, "sly", template=template)).status_code == 201
    assert (await _chat(client, "sly")).status_code == 200
    hostile = [asyncio.create_task(_chat(client, "sly", "go")) for _ in range(12)]
    await asyncio.sleep(0.05)
    start = time.monotonic()
    assert (await _chat(client, "tiny-llama")).status_code == 200
    assert time.monotonic() - start < 10
    answers = [await task for task in hostile]
    codes = {(answer.status_code, answer.json()["error"]["code"]) for answer in answers}
    assert codes <= {(400, "chat_template_stopped"), (503, "chat_template_busy")}
    assert (400, "chat_template_stopped") in codes
