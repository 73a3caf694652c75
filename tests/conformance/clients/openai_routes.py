"""openai for Python, synchronous: what there is beside chat completions."""

import base64
import math
import struct
from typing import Any

import openai
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam
from openai.types.responses import FunctionToolParam, ResponseInputItemParam
from pydantic import BaseModel, Field

from tests.conformance.clients.proving import QUESTION, Place, failure, place, proved

LIMIT = 16


class Rating(BaseModel):
    stars: int = Field(ge=1, le=5)


WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def completions(client: OpenAI, model: str) -> None:
    asking = client.completions.create
    prompt = "The capital of France is"
    whole = asking(model=model, prompt=prompt, temperature=0, max_tokens=LIMIT)
    [choice] = whole.choices
    assert choice.text
    assert whole.object == "text_completion"
    stream = asking(model=model, prompt=prompt, temperature=0, max_tokens=LIMIT, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == choice.text
    several = asking(model=model, prompt=[prompt, QUESTION], temperature=0, max_tokens=LIMIT, n=2)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert several.choices[0].text == several.choices[1].text == choice.text
    proved("/v1/completions")
    echoed = asking(model=model, prompt=prompt, temperature=0, max_tokens=LIMIT, echo=True)
    assert echoed.choices[0].text == prompt + choice.text
    proved("/v1/completions echo")
    told = asking(model=model, prompt=prompt, temperature=0, max_tokens=LIMIT, logprobs=3).choices[0].logprobs
    assert told is not None
    assert "".join(told.tokens or []) == choice.text
    proved("/v1/completions logprobs")
    scored = asking(model=model, prompt=prompt, max_tokens=0, echo=True, logprobs=1).choices[0]
    assert scored.text == prompt
    assert scored.logprobs is not None
    first: object = (scored.logprobs.token_logprobs or [0])[0]
    assert first is None
    assert all(logprob <= 0 for logprob in (scored.logprobs.token_logprobs or [])[1:])
    pieces = asking(model=model, prompt=prompt, max_tokens=0, echo=True, logprobs=1, stream=True)
    told_first = next(chunk.choices[0].logprobs for chunk in pieces)
    assert told_first is not None
    assert told_first.tokens == scored.logprobs.tokens
    proved("/v1/completions echo with logprobs, max_tokens 0")
    refused = failure(openai.BadRequestError, lambda: asking(model=model, prompt=prompt, suffix="!"))
    assert refused.param == "suffix"
    proved("/v1/completions suffix is refused")


def embeddings(client: OpenAI, model: str) -> None:
    def vectors(texts: list[str], **fields: Any) -> list[list[float]]:
        answer = client.embeddings.create(model=model, input=texts, encoding_format="float", **fields)
        return [item.embedding for item in answer.data]

    film, same, other = vectors(["A warm and funny film.", "A warm and funny film.", "Taxes rose by 3 %."])
    assert math.isclose(sum(number * number for number in film), 1, rel_tol=1e-3)
    assert math.dist(film, same) < 1e-2 < math.dist(film, other)
    assert len(vectors(["x"], dimensions=32)[0]) == 32
    default = client.embeddings.create(model=model, input="A warm and funny film.").data[0].embedding
    assert math.dist(default, film) < 1e-2
    raw = client.post(
        "/embeddings",
        cast_to=dict[str, list[dict[str, str]]],
        body={"model": model, "input": "x", "encoding_format": "base64"},
    )
    packed = base64.b64decode(raw["data"][0]["embedding"])
    assert len(struct.unpack(f"<{len(packed) // 4}f", packed)) == len(film)
    proved("/v1/embeddings")


def responses(client: OpenAI, model: str) -> None:
    whole = client.responses.create(
        model=model, input=QUESTION, instructions="Be short.", temperature=0, max_output_tokens=LIMIT, store=False
    )
    assert whole.output_text
    assert whole.usage is not None
    assert whole.usage.output_tokens > 0
    proved("/v1/responses")
    events = list(
        client.responses.create(
            model=model,
            input=QUESTION,
            instructions="Be short.",
            temperature=0,
            max_output_tokens=LIMIT,
            store=False,
            stream=True,
        )
    )
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text
    assert events[0].type == "response.created"
    assert events[-1].type in ("response.completed", "response.incomplete")
    assert events[-1].response.output_text == whole.output_text
    proved("/v1/responses stream")
    parsed = client.responses.parse(
        model=model, input=QUESTION, text_format=Rating, temperature=0, max_output_tokens=60, store=False
    )
    assert isinstance(parsed.output_parsed, Rating)
    with client.responses.stream(
        model=model, input=QUESTION, text_format=Rating, temperature=0, max_output_tokens=60, store=False
    ) as stream:
        stream.until_done()
        assert stream.get_final_response().output_parsed == parsed.output_parsed
    proved("/v1/responses text format")


def response_tools(client: OpenAI, model: str) -> None:
    said: list[ResponseInputItemParam] = [{"role": "user", "content": "How is the weather in Rome?"}]
    asked = client.responses.create(
        model=model,
        input=said,
        tools=[WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=0,
        max_output_tokens=60,
        store=False,
    )
    [call] = [item for item in asked.output if item.type == "function_call"]
    assert call.name == "get_weather"
    answer = client.responses.create(
        model=model,
        input=[
            *said,
            {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
            {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
        ],
        tools=[WEATHER],
        tool_choice="none",
        temperature=0,
        max_output_tokens=LIMIT,
        store=False,
    )
    assert answer.output_text
    proved("/v1/responses tools with a round trip")


def tokens(client: OpenAI, at: Place) -> None:
    def ask(path: str, body: dict[str, Any]) -> Any:
        """These routes are vLLM's, and not all below /v1."""
        root = at.url.removesuffix("/v1")
        return client.post(f"{root}{path}", cast_to=object, body={"model": at.model} | body)

    told = ask("/tokenize", {"prompt": QUESTION, "add_special_tokens": False})
    assert told["count"] == len(told["tokens"]) > 0
    assert ask("/detokenize", {"tokens": told["tokens"]})["prompt"] == QUESTION
    from_ids = client.completions.create(model=at.model, prompt=told["tokens"], temperature=0, max_tokens=LIMIT)
    assert from_ids.usage is not None
    assert from_ids.usage.prompt_tokens == told["count"]
    proved("/tokenize, /detokenize")
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": QUESTION}]
    shown = ask("/v1/chat/completions/render", {"messages": messages})
    assert QUESTION in shown["prompt"]
    asked = client.chat.completions.create(model=at.model, messages=messages, max_tokens=1)
    assert asked.usage is not None
    assert asked.usage.prompt_tokens == len(shown["token_ids"])
    proved("/v1/chat/completions/render")


def main(at: Place) -> None:
    with OpenAI(base_url=at.url, api_key="none", max_retries=0) as client:
        tokens(client, at)
        completions(client, at.model)
        embeddings(client, at.model)
        responses(client, at.model)
        response_tools(client, at.model)


if __name__ == "__main__":
    main(place())
