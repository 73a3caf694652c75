"""openai for Python, synchronous: errors come as the client's own exceptions, and name what is wrong."""

from collections.abc import Callable
from functools import partial
from typing import Any

import openai
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.conformance.clients.proving import Place, failure, place, proved

USER: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello."}]


def _error(kind: type[openai.APIStatusError], ask: Callable[[], object]) -> openai.APIStatusError:
    """The exception of a request, which must be of this kind and in OpenAI's form."""
    error = failure(kind, ask)
    assert error.message
    assert isinstance(error.body, dict)
    assert {"message", "type", "param", "code"} == set(error.body)
    assert error.request_id
    return error


def unknown_models(client: OpenAI) -> None:
    for stream in (False, True):
        ask = partial(client.chat.completions.create, model="nobody", messages=USER, stream=stream)
        error = _error(openai.NotFoundError, ask)
        assert error.code == "model_not_found"
        assert error.param == "model"
    assert _error(openai.NotFoundError, lambda: client.models.retrieve("nobody")).code == "model_not_found"
    proved("404 for an unknown model")


def wrong_fields(client: OpenAI, model: str) -> None:
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("temperature", {"temperature": 3}),
        ("top_p", {"top_p": 0}),
        ("n", {"n": 0}),
        ("max_tokens", {"max_tokens": 0}),
        ("presence_penalty", {"presence_penalty": 3}),
        ("logit_bias", {"logit_bias": {"x": 1}}),
        ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
        ("stop", {"stop": ["a", "b", "c", "d", "e"]}),
        ("store", {"store": True}),
        ("service_tier", {"service_tier": "flex"}),
        ("stream_options", {"stream_options": {"include_usage": True}}),
        ("messages", {"messages": []}),
        ("response_format", {"response_format": {"type": "xml"}}),
        ("tool_choice", {"tool_choice": "required"}),
        ("max_tokens", {"max_tokens": "three"}),
        ("nonsense", {"extra_body": {"nonsense": 1}}),
        ("audio", {"audio": {"format": "mp3", "voice": "alloy"}}),
    ]
    for field, given in wrong:
        fields: dict[str, Any] = {"model": model, "messages": USER} | given
        error = _error(openai.BadRequestError, partial(client.chat.completions.create, **fields))
        assert (error.param or "").split(".")[0] == field, (field, error.param)
        assert field in error.message or error.param == field
    proved("400 names the field")


def what_is_not_text(client: OpenAI, model: str) -> None:
    image: Any = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]}]
    error = _error(openai.BadRequestError, lambda: client.chat.completions.create(model=model, messages=image))
    assert (error.param or "").startswith("messages.0.content")
    proved("images and audio are refused")


def too_long(client: OpenAI, model: str) -> None:
    long: list[ChatCompletionMessageParam] = [{"role": "user", "content": "word " * 20_000}]
    error = _error(openai.BadRequestError, lambda: client.chat.completions.create(model=model, messages=long))
    assert error.code == "context_length_exceeded"
    huge: list[ChatCompletionMessageParam] = [{"role": "user", "content": "x" * (5 << 20)}]
    larger = _error(openai.APIStatusError, lambda: client.chat.completions.create(model=model, messages=huge))
    assert larger.status_code == 413
    proved("400 and 413 for what is too long")


def wrong_routes(client: OpenAI) -> None:
    _error(openai.NotFoundError, lambda: client.get("/nothing", cast_to=object))
    assert _error(openai.APIStatusError, lambda: client.get("/chat/completions", cast_to=object)).status_code == 405
    proved("404 and 405 for routes")


def request_ids(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=USER, max_tokens=1, extra_headers={"x-request-id": "mine-1"}
    )
    assert answer._request_id == "mine-1"
    assert client.chat.completions.create(model=model, messages=USER, max_tokens=1)._request_id
    proved("x-request-id")


def main(at: Place) -> None:
    with OpenAI(base_url=at.url, api_key="none", max_retries=0) as client:
        unknown_models(client)
        wrong_fields(client, at.model)
        what_is_not_text(client, at.model)
        too_long(client, at.model)
        wrong_routes(client)
        request_ids(client, at.model)


if __name__ == "__main__":
    main(place())
