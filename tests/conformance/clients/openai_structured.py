"""openai for Python: answers that have a form."""

import json
import re
from typing import Any, Literal

from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam
from pydantic import BaseModel, Field

from tests.conformance.clients.proving import QUESTION, Place, place, proved

LIMIT = 120
USER: list[ChatCompletionMessageParam] = [{"role": "user", "content": QUESTION}]


class Aspect(BaseModel):
    name: Literal["story", "actors", "music"]
    stars: int = Field(ge=1, le=5)


class Review(BaseModel):
    sentiment: Literal["positive", "negative"]
    summary: str = Field(max_length=24)
    aspects: list[Aspect] = Field(min_length=1, max_length=2)
    sequel: bool | None


def _ask(client: OpenAI, model: str, messages: list[ChatCompletionMessageParam], **fields: Any) -> ChatCompletion:
    answer = client.chat.completions.create(
        model=model, messages=messages, **({"max_tokens": LIMIT, "temperature": 0} | fields)
    )
    assert isinstance(answer, ChatCompletion)
    assert all(choice.finish_reason == "stop" for choice in answer.choices), answer
    return answer


def _text(answer: ChatCompletion) -> str:
    return answer.choices[0].message.content or ""


def parsing(client: OpenAI, model: str) -> Review:
    answer = client.chat.completions.parse(
        model=model, messages=USER, response_format=Review, temperature=0, max_tokens=LIMIT
    )
    message = answer.choices[0].message
    assert isinstance(message.parsed, Review)
    assert message.content is not None
    assert not re.search(r"\s{2,}", message.content)
    proved(".parse() with pydantic")
    return message.parsed


def streaming(client: OpenAI, model: str, whole: Review) -> None:
    with client.chat.completions.stream(
        model=model, messages=USER, response_format=Review, temperature=0, max_tokens=LIMIT
    ) as stream:
        deltas = [event for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert len(deltas) > 3
    assert final.choices[0].message.parsed == whole
    proved(".stream() with pydantic")


def schemas(client: OpenAI, model: str) -> None:
    schema = {
        "type": "object",
        "properties": {
            "when": {"type": "string", "pattern": r"^\d{4}-\d{2}$"},
            "score": {"type": "integer", "minimum": 10, "maximum": 12},
        },
        "required": ["when", "score"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "dated", "strict": True, "schema": schema}}
    answer = _ask(client, model, USER, response_format=form, temperature=1, seed=3, n=3)
    for choice in answer.choices:
        value = json.loads(choice.message.content or "")
        assert set(value) == {"when", "score"}
        assert re.fullmatch(r"\d{4}-\d{2}", value["when"])
        assert value["score"] in (10, 11, 12)
    proved("response_format json_schema")


def objects(client: OpenAI, model: str) -> None:
    asked: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": 'Answer with this JSON object and nothing else: {"ok": true}'}
    ]
    answer = _ask(client, model, asked, response_format={"type": "json_object"})
    assert isinstance(json.loads(_text(answer)), dict)
    proved("response_format json_object")


def other_forms(client: OpenAI, model: str) -> None:
    choices = ["a comedy", "a tragedy"]
    for form, pattern in (
        ({"choice": choices}, "a comedy|a tragedy"),
        ({"regex": r"\d{2}:\d{2}"}, r"\d{2}:\d{2}"),
        ({"grammar": 'start: "<" ("yes" | "no") ">"'}, "<(yes|no)>"),
    ):
        answer = _ask(client, model, USER, extra_body={"structured_outputs": form})
        assert re.fullmatch(pattern, _text(answer)), answer
    proved("structured_outputs regex, choice, grammar")


def main(at: Place) -> None:
    with OpenAI(base_url=at.url, api_key="none", max_retries=0) as client:
        whole = parsing(client, at.model)
        streaming(client, at.model, whole)
        schemas(client, at.model)
        objects(client, at.model)
        other_forms(client, at.model)


if __name__ == "__main__":
    main(place())
