"""openai for Python, synchronous: conversations, whole and streamed."""

from typing import cast

from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam

from tests.conformance.clients.proving import QUESTION, Place, place, proved

LIMIT = 24
USER: list[ChatCompletionMessageParam] = [{"role": "user", "content": QUESTION}]


def _ask(client: OpenAI, model: str, messages: list[ChatCompletionMessageParam]) -> ChatCompletion:
    return client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=LIMIT)


def _stream(client: OpenAI, model: str, *, include_usage: bool) -> list[ChatCompletionChunk]:
    stream = client.chat.completions.create(
        model=model,
        messages=USER,
        temperature=0,
        max_tokens=LIMIT,
        stream=True,
        stream_options={"include_usage": include_usage},
    )
    return list(stream)


def _text(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def chat(client: OpenAI, model: str) -> ChatCompletion:
    whole = _ask(client, model, USER)
    [choice] = whole.choices
    assert whole.object == "chat.completion"
    assert whole.model == model
    assert whole.system_fingerprint
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.message.tool_calls is None
    assert choice.finish_reason in ("stop", "length")
    assert whole.usage is not None
    assert 0 < whole.usage.completion_tokens <= LIMIT
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    proved("chat")
    return whole


def streams(client: OpenAI, model: str, whole: ChatCompletion) -> None:
    chunks = _stream(client, model, include_usage=False)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert _text(chunks) == whole.choices[0].message.content
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk.system_fingerprint for chunk in chunks} == {whole.system_fingerprint}
    proved("stream")
    assert all(chunk.usage is None for chunk in chunks)
    *others, last = _stream(client, model, include_usage=True)
    assert all(chunk.usage is None for chunk in others)
    assert last.choices == []
    assert last.usage is not None
    assert whole.usage is not None
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    proved("stream_options.include_usage")


def contents_and_roles(client: OpenAI, model: str, whole: ChatCompletion) -> None:
    first, second = QUESTION[:20], QUESTION[20:]
    parts: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": [{"type": "text", "text": first}, {"type": "text", "text": second}]}
    ]
    assert _text_of(_ask(client, model, parts)) == _text_of(whole)
    proved("text parts")
    rule = "Answer in one word."
    as_system = _ask(client, model, [{"role": "system", "content": rule}, *USER])
    as_developer = _ask(client, model, [{"role": "developer", "content": rule}, *USER])
    assert as_system.usage is not None
    assert whole.usage is not None
    assert as_system.usage.prompt_tokens != whole.usage.prompt_tokens
    assert _text_of(as_developer) == _text_of(as_system)
    proved("roles system and developer")
    named = _ask(client, model, [{"role": "user", "name": "Ada", "content": QUESTION}])
    assert named.usage is not None
    assert named.usage.prompt_tokens > whole.usage.prompt_tokens
    proved("name")


def conversation(client: OpenAI, model: str, whole: ChatCompletion) -> None:
    answer = cast(ChatCompletionMessageParam, whole.choices[0].message)  # as the client's own examples do
    second = _ask(client, model, [*USER, answer, {"role": "user", "content": "Say it again."}])
    assert second.usage is not None
    assert whole.usage is not None
    assert second.usage.prompt_tokens > whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert second.choices[0].message.content
    as_dict = cast(ChatCompletionMessageParam, whole.choices[0].message.model_dump())
    again = _ask(client, model, [*USER, as_dict, {"role": "user", "content": "Say it again."}])
    assert _text_of(again) == _text_of(second)
    proved("an answer's message sent back")


def prompts(client: OpenAI, model: str) -> None:
    begun: list[ChatCompletionMessageParam] = [*USER, {"role": "assistant", "content": "This review is"}]
    goes_on = client.chat.completions.create(
        model=model,
        messages=begun,
        temperature=0,
        max_tokens=8,
        extra_body={"continue_final_message": True, "add_generation_prompt": False},
    )
    closed = _ask(client, model, begun)
    assert goes_on.choices[0].message.content
    assert goes_on.usage is not None
    assert closed.usage is not None
    assert goes_on.usage.prompt_tokens < closed.usage.prompt_tokens
    proved("continue_final_message")
    bare = client.chat.completions.create(
        model=model, messages=USER, temperature=0, max_tokens=8, extra_body={"add_generation_prompt": False}
    )
    opened = _ask(client, model, USER)
    assert bare.usage is not None
    assert opened.usage is not None
    assert bare.usage.prompt_tokens < opened.usage.prompt_tokens
    proved("add_generation_prompt")


def neutral_fields(client: OpenAI, model: str, whole: ChatCompletion) -> None:
    same = client.chat.completions.create(
        model=model,
        messages=USER,
        temperature=0,
        max_tokens=LIMIT,
        metadata={"team": "films"},
        user="someone",
        store=False,
        service_tier="auto",
        safety_identifier="someone",
        prompt_cache_key="films",
        modalities=["text"],
    )
    assert _text_of(same) == _text_of(whole)
    assert same.service_tier == "default"
    proved("metadata, user, store: false, service_tier, modalities")


def models(client: OpenAI, model: str) -> None:
    cards = {card.id: card for card in client.models.list()}
    assert model in cards
    assert len(cards) == 2
    assert client.models.retrieve(model).id == model
    proved("models")


def _text_of(answer: ChatCompletion) -> str | None:
    return answer.choices[0].message.content


def main(at: Place) -> None:
    with OpenAI(base_url=at.url, api_key="none", max_retries=0) as client:
        whole = chat(client, at.model)
        streams(client, at.model, whole)
        contents_and_roles(client, at.model, whole)
        conversation(client, at.model, whole)
        prompts(client, at.model)
        neutral_fields(client, at.model, whole)
        models(client, at.model)


if __name__ == "__main__":
    main(place())
