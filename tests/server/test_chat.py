"""POST /v1/chat/completions through the app: streamed equals whole, fields are honoured or refused, names resolve."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from server.engine.errors import SequenceFailed
from tests.server.building import MAX_MODEL_LEN, chat_body, events_of, soft_prompt_files, text_of, wait_until_async
from tests.server.conftest import Served

CHAT = "/v1/chat/completions"


async def ask(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    """The body of a good answer."""
    answer = await client.post(CHAT, json=chat_body(**fields))
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def content(body: dict[str, Any]) -> str:
    text: str = body["choices"][0]["message"]["content"]
    return text


async def refusal(client: httpx.AsyncClient, body: dict[str, Any] | str) -> tuple[int, dict[str, Any]]:
    """Status and error of a refused request."""
    content = body if isinstance(body, str) else json.dumps(body)
    answer = await client.post(CHAT, content=content, headers={"content-type": "application/json"})
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error


async def test_whole_answer_has_openai_shape(served: Served) -> None:
    _, client = served
    body = await ask(client, model="tiny-llama", ignore_eos=True)
    assert body["object"] == "chat.completion"
    assert body["model"] == "tiny-llama"
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["choices"][0]["message"]["role"] == "assistant"
    prompt_tokens = len("user> hello\nassistant> ")
    assert body["usage"] == {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": 24,
        "total_tokens": prompt_tokens + 24,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


async def test_stream_has_role_content_finish_usage_done(served: Served) -> None:
    _, client = served
    fields: dict[str, Any] = {"model": "tiny-llama", "ignore_eos": True}
    whole = await ask(client, **fields)
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    answer = await client.post(CHAT, json=chat_body(**fields, **options))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["cache-control"] == "no-cache"
    events = events_of(answer.text)
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert text_of(events) == content(whole)
    assert events[-3]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
    assert events[-2]["choices"] == []
    usage = events[-2]["usage"]
    assert usage | {"prompt_tokens_details": None} == whole["usage"] | {"prompt_tokens_details": None}
    assert usage["prompt_tokens_details"]["cached_tokens"] == 16  # a whole block of the same prompt, asked before
    assert all(event["usage"] is None for event in events[:-2])
    assert len({event["id"] for event in events[:-1]}) == 1
    assert events[-1] == "[DONE]"


async def test_stream_without_usage_has_no_usage_field(served: Served) -> None:
    _, client = served
    answer = await client.post(CHAT, json=chat_body("tiny-llama", stream=True))
    assert all("usage" not in event for event in events_of(answer.text)[:-1])


@pytest.mark.parametrize("seed", range(4))
async def test_streamed_text_equals_whole_text(served: Served, seed: int) -> None:
    running, client = served
    running.services.registry.publish("team", soft_prompt_files(1))
    fields: dict[str, Any] = {"model": "team", "text": "é" * seed, "temperature": 1.0, "seed": seed, "max_tokens": 80}
    whole, answer = await asyncio.gather(
        ask(client, **fields), client.post(CHAT, json=chat_body(**fields, stream=True))
    )
    assert text_of(events_of(answer.text)) == content(whole)


async def test_stop_string_ends_the_text_before_it_and_frees_the_sequence(served: Served) -> None:
    running, client = served
    full = content(await ask(client, model="tiny-llama", max_tokens=200, ignore_eos=True))
    stop = full[10:13]
    body = await ask(client, model="tiny-llama", max_tokens=200, ignore_eos=True, stop=stop)
    assert content(body) == full[: full.index(stop)]
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] < 200
    await wait_until_async(lambda: running.engine.stats().num_aborted == 1)
    streamed = await client.post(
        CHAT, json=chat_body("tiny-llama", max_tokens=200, ignore_eos=True, stop=["~never~", stop], stream=True)
    )
    assert text_of(events_of(streamed.text)) == full[: full.index(stop)]


async def test_seed_decides_the_answer_and_no_seed_is_random(served: Served) -> None:
    _, client = served
    fields = {"model": "tiny-llama", "temperature": 1.5, "max_tokens": 40, "ignore_eos": True}
    answers = [content(await ask(client, **fields, seed=seed)) for seed in (1, 1, 2, -1)]
    assert answers[0] == answers[1]
    assert len(set(answers)) == 3
    assert content(await ask(client, **fields)) != content(await ask(client, **fields))


async def test_top_k_of_one_is_greedy_and_null_is_left_out(served: Served) -> None:
    _, client = served
    greedy = content(await ask(client, model="tiny-llama"))
    assert (
        content(await ask(client, model="tiny-llama", temperature=1.3, top_k=1, top_p=None, stop=None, n=1)) == greedy
    )
    assert content(await ask(client, model="tiny-llama", top_k=-1, user="someone")) == greedy


async def test_max_completion_tokens_limits_like_max_tokens(served: Served) -> None:
    _, client = served
    body = await ask(client, model="tiny-llama", max_tokens=None, max_completion_tokens=7, ignore_eos=True)
    assert body["usage"]["completion_tokens"] == 7


async def test_without_a_limit_the_answer_fills_the_context(served: Served) -> None:
    _, client = served
    body = await ask(client, model="tiny-llama", text="x" * 900, max_tokens=None, ignore_eos=True)
    assert body["usage"]["total_tokens"] == MAX_MODEL_LEN


async def test_too_many_tokens_are_refused_with_numbers(served: Served) -> None:
    running, client = served
    running.services.registry.publish("team", soft_prompt_files(1))
    status, error = await refusal(client, chat_body("team", max_tokens=MAX_MODEL_LEN))
    assert (status, error["code"]) == (400, "context_length_exceeded")
    assert "1024" in error["message"]
    assert "5 virtual tokens" in error["message"]
    for length in (2000, 4_000_000):
        status, error = await refusal(client, chat_body("tiny-llama", "x" * length, max_tokens=None))
        assert (status, error["code"]) == (400, "context_length_exceeded")
        assert str(length) in error["message"] or length == 2000


async def test_text_parts_are_joined(served: Served) -> None:
    _, client = served
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    joined = await ask(client, model="tiny-llama", messages=[{"role": "user", "content": parts}])
    assert content(joined) == content(await ask(client, model="tiny-llama"))


@pytest.mark.parametrize("reference", ["team", "team@{digest}", "tiny-llama:team", "tiny-llama:team@{digest}", "prod"])
async def test_adapter_is_found_by_every_form_of_its_name(served: Served, reference: str) -> None:
    running, client = served
    registry = running.services.registry
    adapter = registry.publish("team", soft_prompt_files(1))
    registry.alias("prod", "team")
    expected = content(await ask(client, model="team"))
    assert expected != content(await ask(client, model="tiny-llama"))
    body = await ask(client, model=reference.format(digest=adapter.manifest.digest[:8]))
    assert content(body) == expected
    assert body["usage"]["prompt_tokens"] == len("user> hello\nassistant> ")


@pytest.mark.parametrize(
    "model",
    ["nobody", "team@abcdef", "tiny-llama:", "tiny-llama:nobody", "other:team", "../../etc/passwd", "a b\n", "@"],
)
async def test_unknown_model_is_404(served: Served, model: str) -> None:
    running, client = served
    running.services.registry.publish("team", soft_prompt_files(1))
    for stream in (False, True):
        status, error = await refusal(client, chat_body(model, stream=stream))
        assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")


async def test_adapter_brings_its_chat_format_and_sampling(served: Served) -> None:
    running, client = served
    chat_format = {
        "template": "{{ messages[-1].content }}!",
        "stop": ["~never~"],
        "sampling": {"temperature": 0, "max_tokens": 5},
    }
    running.services.registry.publish("team", soft_prompt_files(1, manifest={"chat_format": chat_format}))
    own = await ask(client, model="team", temperature=None, max_tokens=None, ignore_eos=True)
    assert own["usage"]["prompt_tokens"] == len("hello!")
    assert own["usage"]["completion_tokens"] == 5
    assert content(own) == content(await ask(client, model="team", temperature=0, max_tokens=5, ignore_eos=True))


async def test_messages_that_the_template_refuses_are_a_400(served: Served) -> None:
    running, client = served
    chat_format = {"template": "{{ raise_exception('no system here') }}"}
    running.services.registry.publish("team", soft_prompt_files(1, manifest={"chat_format": chat_format}))
    status, error = await refusal(client, chat_body("team"))
    assert (status, error["code"], error["param"]) == (400, "messages_refused", "messages")
    assert "no system here" in error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"best_of": 2}, "best_of"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0.type"),
        ({"messages": [{"role": "user", "content": "x"}] * 1025}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -5}, "max_tokens"),
        ({"max_tokens": "24"}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": 1 << 63}, "seed"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop.0"),
        ({"stop": "x" * 65}, "stop.0"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"model": ""}, "model"),
        ({"user": "\ud800"}, "user"),
        ({"temperature": float("inf")}, "temperature"),
        ({"k" * 300: 1}, "k" * 256),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(served: Served, fields: dict[str, Any], param: str) -> None:
    _, client = served
    # the standard library's JSON, because httpx refuses to send a half surrogate or an infinite number
    body = json.dumps(chat_body("tiny-llama") | fields)
    status, error = await refusal(client, body)
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert error["message"].startswith(f"{param}: ")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"model": NaN}'])
async def test_bodies_that_are_no_request_are_a_400(served: Served, body: bytes) -> None:
    _, client = served
    answer = await client.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


async def test_failure_inside_a_stream_is_an_error_event_without_done(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, client = served
    whole = content(await ask(client, model="tiny-llama", ignore_eos=True))
    generate = running.engine.generate

    async def failing(*args: Any, **kwargs: Any) -> Any:
        async for delta in generate(*args, **kwargs):
            yield delta
            raise SequenceFailed("tensor at 0x7f00")

    monkeypatch.setattr(running.engine, "generate", failing, raising=False)
    answer = await client.post(CHAT, json=chat_body("tiny-llama", ignore_eos=True, stream=True))
    events = events_of(answer.text)
    assert whole.startswith(text_of(events[:-1]))
    assert events[-1] == {
        "error": {
            "message": "This request could not be computed.",
            "type": "server_error",
            "param": None,
            "code": "sequence_failed",
        }
    }


async def test_failure_before_the_first_token_is_a_500(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    running, client = served

    async def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a secret at 0x7f00")
        yield

    monkeypatch.setattr(running.engine, "generate", failing, raising=False)
    for stream in (False, True):
        answer = await client.post(CHAT, json=chat_body("tiny-llama", stream=stream))
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal_error"
        assert "secret" not in answer.text
        assert answer.headers["x-request-id"]
