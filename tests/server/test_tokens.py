"""/tokenize, /detokenize and render: exactly what a chat request gives the model."""

from typing import Any

import httpx
import pytest

from tests.server.building import chat_body, multipart, soft_prompt_files
from tests.server.conftest import Served
from tests.tiny import EOS_ID, tiny_tokenizer

MESSAGES = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "héllo 世界"}]


async def _post(client: httpx.AsyncClient, path: str, **body: Any) -> Any:
    response = await client.post(path, json={"model": "tiny-llama", **body})
    assert response.status_code == 200, response.text
    return response.json()


async def _refusal(client: httpx.AsyncClient, path: str, **body: Any) -> tuple[int, str | None, str]:
    response = await client.post(path, json={"model": "tiny-llama", **body})
    error = response.json()["error"]
    return response.status_code, error["param"], error["code"]


async def _register(client: httpx.AsyncClient, name: str, template: str) -> None:
    files = soft_prompt_files(1, num_virtual_tokens=7, manifest={"chat_format": {"template": template}})
    response = await client.post("/v1/adapters", data={"name": name}, files=multipart(files))
    assert response.status_code == 201, response.text


@pytest.mark.parametrize("text", ["", "hello", "héllo 世界 🙂", "</s> between </s>", " leading and\n\ttrailing "])
async def test_there_and_back(served: Served, text: str) -> None:
    _, client = served
    there = await _post(client, "/tokenize", prompt=text)
    assert there == {
        "count": len(there["tokens"]),
        "max_model_len": 1024,
        "tokens": tiny_tokenizer()(text)["input_ids"],
        "token_strs": None,
    }
    assert await _post(client, "/detokenize", tokens=there["tokens"]) == {"prompt": text}


async def test_token_strings_are_the_vocabularys(served: Served) -> None:
    _, client = served
    there = await _post(client, "/tokenize", prompt="a b</s>", return_token_strs=True)
    assert there["token_strs"] == ["a", "Ġ", "b", "</s>"]


async def test_a_conversation_is_tokenized_as_a_chat_sees_it(served: Served) -> None:
    _, client = served
    await _register(client, "other", "{% for message in messages %}[{{ message['content'] }}]{% endfor %}")
    for model in ("tiny-llama", "other"):
        chat = await _post(client, "/v1/chat/completions", **chat_body(model, messages=MESSAGES, max_tokens=1))
        seen = await _post(client, "/v1/chat/completions/render", **chat_body(model, messages=MESSAGES))
        tokens = await _post(client, "/tokenize", model=model, messages=MESSAGES)
        assert tokens["tokens"] == seen["token_ids"]
        assert tokens["count"] == chat["usage"]["prompt_tokens"]
        assert (await _post(client, "/detokenize", tokens=seen["token_ids"]))["prompt"] == seen["prompt"]


async def test_render_shows_template_and_virtual_tokens(served: Served) -> None:
    _, client = served
    await _register(client, "other", "{% for message in messages %}[{{ message['content'] }}]{% endfor %}")
    base = await _post(client, "/v1/chat/completions/render", **chat_body("tiny-llama", messages=MESSAGES))
    assert base["prompt"] == "system> be kind\nuser> héllo 世界\nassistant> "
    assert (base["num_virtual_tokens"], base["max_model_len"], base["model"]) == (0, 1024, "tiny-llama")
    other = await _post(client, "/v1/chat/completions/render", **chat_body("other", messages=MESSAGES))
    assert (other["prompt"], other["num_virtual_tokens"]) == ("[be kind][héllo 世界]", 7)


async def test_the_assistants_turn_is_opened_unless_told(served: Served) -> None:
    _, client = served
    opened = await _post(client, "/tokenize", messages=MESSAGES)
    shut = await _post(client, "/tokenize", messages=MESSAGES, add_generation_prompt=False)
    assert opened["count"] - shut["count"] == len("assistant> ")
    turns = [*MESSAGES, {"role": "assistant", "content": "so"}]
    continued = await _post(client, "/tokenize", messages=turns, continue_final_message=True)
    assert (await _post(client, "/detokenize", tokens=continued["tokens"]))["prompt"].endswith("assistant> so")


@pytest.mark.parametrize(
    ("path", "body", "param", "code"),
    [
        ("/tokenize", {}, "prompt", "invalid_value"),
        ("/tokenize", {"prompt": "a", "messages": MESSAGES}, "prompt", "invalid_value"),
        ("/tokenize", {"prompt": "a", "add_generation_prompt": True}, "add_generation_prompt", "invalid_value"),
        ("/tokenize", {"messages": [{"role": "nobody", "content": "a"}]}, "messages.0.role", "invalid_value"),
        ("/tokenize", {"prompt": 1}, "prompt", "invalid_value"),
        ("/tokenize", {"prompt": "a" * 100_000}, "prompt", "context_length_exceeded"),
        (
            "/tokenize",
            {"messages": [{"role": "user", "content": "a" * 100_000}]},
            "messages",
            "context_length_exceeded",
        ),
        ("/detokenize", {"tokens": [1, EOS_ID + 1]}, "tokens", "invalid_value"),
        ("/detokenize", {"tokens": [-1]}, "tokens.0", "invalid_value"),
        ("/detokenize", {"tokens": [True]}, "tokens.0", "invalid_value"),
        ("/v1/chat/completions/render", {"messages": []}, "messages", "invalid_value"),
        ("/v1/chat/completions/render", {"messages": MESSAGES, "nonsense": 1}, "nonsense", "invalid_value"),
    ],
)
async def test_what_is_wrong_is_named(served: Served, path: str, body: dict[str, Any], param: str, code: str) -> None:
    _, client = served
    assert await _refusal(client, path, **body) == (400, param, code)


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize", "/v1/chat/completions/render"])
async def test_an_unknown_model_is_no_base(served: Served, path: str) -> None:
    _, client = served
    bodies: dict[str, dict[str, Any]] = {"/tokenize": {"prompt": "a"}, "/detokenize": {"tokens": [1]}}
    body = bodies.get(path, {"messages": MESSAGES})
    assert await _refusal(client, path, **{"model": "nobody", **body}) == (404, "model", "model_not_found")


async def test_nothing_is_read_while_the_server_stops(served: Served) -> None:
    running, client = served
    running.engine.begin_drain()
    assert (await _refusal(client, "/tokenize", prompt="a"))[0] == 503
