"""Fields of chat completions beyond the plain answer: several choices, log-probabilities, penalties, roles, prompts."""

import math
from typing import Any

import httpx
import pytest

from tests.server.building import Running, chat_body, events_of, soft_prompt_files
from tests.server.conftest import Served
from tests.server.test_chat import CHAT, ask, content, refusal


def texts_by_index(events: list[Any]) -> dict[int, str]:
    """The content of each choice of a stream."""
    texts: dict[int, str] = {}
    for event in events:
        for choice in [] if event == "[DONE]" else event["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + (choice["delta"].get("content") or "")
    return texts


def token_id(running: Running, token: str) -> str:
    """As logit_bias names it."""
    return str(running.services.base.tokenizer.convert_tokens_to_ids(token))


async def stream(client: httpx.AsyncClient, **fields: Any) -> list[Any]:
    answer = await client.post(CHAT, json=chat_body(**fields, stream=True))
    assert answer.status_code == 200, answer.text
    return events_of(answer.text)


async def test_n_choices_share_the_prompt_and_differ_by_seed(served: Served) -> None:
    running, client = served
    running.services.registry.publish("team", soft_prompt_files(1))
    prompt = "a prompt that is longer than two blocks of the cache"
    fields: dict[str, Any] = {"text": prompt, "model": "team", "temperature": 1.0, "seed": 5, "ignore_eos": True}
    several = await ask(client, **fields, n=3)
    assert [choice["index"] for choice in several["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in several["choices"]}) == 3
    alone = await ask(client, **fields)
    assert content(several) == content(alone)  # the first of several is the one that is asked for alone
    assert several["usage"]["completion_tokens"] == 3 * alone["usage"]["completion_tokens"]
    assert several["usage"]["prompt_tokens"] == alone["usage"]["prompt_tokens"]
    events = await stream(client, **fields, n=3)
    assert texts_by_index(events) == {i: choice["message"]["content"] for i, choice in enumerate(several["choices"])}
    finishes = [event["choices"][0] for event in events[:-1] if event["choices"][0]["finish_reason"]]
    assert sorted(choice["index"] for choice in finishes) == [0, 1, 2]
    roles = [event["choices"][0] for event in events[:-1] if "role" in event["choices"][0]["delta"]]
    assert sorted(choice["index"] for choice in roles) == [0, 1, 2]


async def test_logprobs_are_of_the_answers_tokens(served: Served) -> None:
    _, client = served
    fields: dict[str, Any] = {"model": "tiny-llama", "logprobs": True, "top_logprobs": 4, "ignore_eos": True}
    body = await ask(client, **fields)
    tokens = body["choices"][0]["logprobs"]["content"]
    assert len(tokens) == body["usage"]["completion_tokens"]
    assert b"".join(bytes(token["bytes"]) for token in tokens).decode(errors="replace").startswith(content(body)[:1])
    for token in tokens:
        assert len(token["top_logprobs"]) == 4
        likeliest = [entry["logprob"] for entry in token["top_logprobs"]]
        assert likeliest == sorted(likeliest, reverse=True)
        assert token["logprob"] == pytest.approx(likeliest[0])  # greedy
        assert sum(math.exp(logprob) for logprob in likeliest) <= 1
    streamed: list[Any] = []
    for event in (await stream(client, **fields))[:-1]:
        for choice in event["choices"]:
            streamed += (choice["logprobs"] or {"content": []})["content"]
    assert [token["bytes"] for token in streamed] == [token["bytes"] for token in tokens]
    assert [token["logprob"] for token in streamed] == pytest.approx([token["logprob"] for token in tokens])
    without = await ask(client, model="tiny-llama", logprobs=True)
    assert all(token["top_logprobs"] == [] for token in without["choices"][0]["logprobs"]["content"])
    assert (await ask(client, model="tiny-llama"))["choices"][0]["logprobs"] is None


async def test_logprobs_end_where_a_stop_string_ends_the_text(served: Served) -> None:
    _, client = served
    full = content(await ask(client, model="tiny-llama", max_tokens=100, ignore_eos=True))
    stop = full[10:13]
    body = await ask(client, model="tiny-llama", max_tokens=100, ignore_eos=True, stop=stop, logprobs=True)
    told = b"".join(bytes(token["bytes"]) for token in body["choices"][0]["logprobs"]["content"])
    assert told.decode(errors="replace") == content(body) == full[: full.index(stop)]


async def test_logit_bias_forces_and_forbids_tokens(served: Served) -> None:
    running, client = served
    bias = {token_id(running, "A"): 100}
    forced = await ask(client, model="tiny-llama", logit_bias=bias, max_tokens=5, ignore_eos=True)
    assert content(forced) == "AAAAA"
    banned = {token_id(running, "A"): -100}
    fields: dict[str, Any] = {"model": "tiny-llama", "ignore_eos": True, "temperature": 2.0, "max_tokens": 900}
    assert "A" in content(await ask(client, **fields, seed=1))
    assert "A" not in content(await ask(client, **fields, seed=1, logit_bias=banned))
    status, error = await refusal(client, chat_body("tiny-llama", logit_bias={"99999": 1}))
    assert (status, error["param"]) == (400, "logit_bias")


async def test_penalties_keep_tokens_from_coming_again(served: Served) -> None:
    running, client = served
    bias = {token_id(running, "A"): 4}
    fields: dict[str, Any] = {"model": "tiny-llama", "max_tokens": 24, "ignore_eos": True, "logit_bias": bias}
    plain = content(await ask(client, **fields))
    penalised = content(await ask(client, **fields, frequency_penalty=2.0, presence_penalty=2.0))
    assert plain.count("A") > penalised.count("A")
    repeated = content(await ask(client, **fields, repetition_penalty=5.0))
    assert plain.count("A") > repeated.count("A")


async def test_min_tokens_holds_the_end_back(served: Served) -> None:
    running, client = served
    ends = {str(token_id): 100 for token_id in running.services.stop_token_ids}
    at_once = await ask(client, model="tiny-llama", logit_bias=ends, max_tokens=20)
    assert at_once["usage"]["completion_tokens"] == 0
    later = await ask(client, model="tiny-llama", logit_bias=ends, max_tokens=20, min_tokens=7)
    assert later["usage"]["completion_tokens"] == 7
    assert later["choices"][0]["finish_reason"] == "stop"


async def test_developer_is_system_and_names_stand_before_what_is_said(served: Served) -> None:
    _, client = served

    async def prompt_tokens(*messages: dict[str, Any]) -> int:
        number: int = (await ask(client, model="tiny-llama", messages=list(messages)))["usage"]["prompt_tokens"]
        return number

    user = {"role": "user", "content": "x"}
    assert await prompt_tokens({"role": "developer", "content": "be"}, user) == await prompt_tokens(
        {"role": "system", "content": "be"}, user
    )
    assert await prompt_tokens(user | {"name": "Ada"}) == await prompt_tokens(user | {"content": "Ada: x"})


async def test_final_message_is_continued(served: Served) -> None:
    _, client = served
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "Once upon"}]
    body = await ask(client, model="tiny-llama", messages=messages, continue_final_message=True)
    assert body["usage"]["prompt_tokens"] == len("user> x\nassistant> Once upon")
    closed = await ask(client, model="tiny-llama", messages=messages, add_generation_prompt=False)
    assert closed["usage"]["prompt_tokens"] == len("user> x\nassistant> Once upon\n")


async def test_fingerprint_tells_adapters_apart(served: Served) -> None:
    running, client = served
    running.services.registry.publish("team", soft_prompt_files(1))
    prints = [(await ask(client, model=model))["system_fingerprint"] for model in ("tiny-llama", "team", "tiny-llama")]
    assert prints[0] == prints[2] != prints[1]
    events = await stream(client, model="team")
    assert {event["system_fingerprint"] for event in events[:-1]} == {prints[1]}


async def test_labels_and_neutral_values_change_nothing(served: Served) -> None:
    _, client = served
    neutral: dict[str, Any] = {
        "store": False,
        "service_tier": "auto",
        "modalities": ["text"],
        "metadata": {"team": "a"},
        "user": "me",
        "safety_identifier": "me",
        "prompt_cache_key": "k",
        "parallel_tool_calls": None,
        "response_format": {"type": "text"},
    }
    assert content(await ask(client, model="tiny-llama", **neutral)) == content(await ask(client, model="tiny-llama"))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 9}, "n"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"min_p": 1.5}, "min_p"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"min_tokens": 100}, "min_tokens"),
        ({"min_tokens": 3, "ignore_eos": True}, "min_tokens"),
        ({"store": True}, "store"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"modalities": ["audio"]}, "modalities.0"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs.enable_thinking"),
        ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs.tokenize"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"parallel_tool_calls": True}, "parallel_tool_calls"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
        ({"messages": [{"role": "function", "content": "x", "name": "f"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": "x", "reasoning_content": "y"}]}, "messages.0.role"),
    ],
)
async def test_what_is_out_of_bounds_is_refused_by_name(served: Served, fields: dict[str, Any], param: str) -> None:
    _, client = served
    status, error = await refusal(client, chat_body("tiny-llama") | fields)
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert error["message"].startswith(f"{param}: ")
