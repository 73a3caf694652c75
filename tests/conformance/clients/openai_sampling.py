"""openai for Python, synchronous: how tokens are chosen, counted and told."""

from typing import Any

from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam, ChatCompletionTokenLogprob
from openai.types.chat.chat_completion import Choice

from tests.conformance.clients.proving import QUESTION, Place, place, proved

LIMIT = 16
FORCED = "1000"
"""The id of some ordinary token."""


def _ask(client: OpenAI, model: str, text: str = QUESTION, **fields: Any) -> ChatCompletion:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": text}]
    answer = client.chat.completions.create(model=model, messages=messages, **({"max_tokens": LIMIT} | fields))
    assert isinstance(answer, ChatCompletion)
    return answer


def _texts(answer: ChatCompletion) -> list[str]:
    assert [choice.index for choice in answer.choices] == list(range(len(answer.choices)))
    return [choice.message.content or "" for choice in answer.choices]


def _tokens(choice: Choice) -> list[ChatCompletionTokenLogprob]:
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    return choice.logprobs.content


def greedy(client: OpenAI, model: str) -> str:
    [whole] = _texts(_ask(client, model, temperature=0))
    for only_the_likeliest in ({"top_k": 1}, {"min_p": 1}):
        assert _texts(_ask(client, model, temperature=2, extra_body=only_the_likeliest)) == [whole]
    assert _texts(_ask(client, model, temperature=2, top_p=1e-6)) == [whole]
    proved("temperature, top_p, top_k, min_p")
    return whole


def seeds(client: OpenAI, model: str) -> None:
    sampled: dict[str, Any] = {"temperature": 2, "extra_body": {"ignore_eos": True}}
    first, second, other = (_texts(_ask(client, model, seed=seed, **sampled)) for seed in (1, 1, 2))
    assert first == second
    assert first != other
    proved("seed")
    several = _ask(client, model, seed=1, n=3, **sampled)
    assert _texts(several)[0] == first[0]
    assert len(set(_texts(several))) == 3
    assert several.usage is not None
    assert several.usage.completion_tokens == 3 * LIMIT
    assert _streamed(client, model, seed=1, n=3, **sampled) == _texts(several)
    proved("n")


def _streamed(client: OpenAI, model: str, **fields: Any) -> list[str]:
    """The texts of a stream's choices."""
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": QUESTION}]
    stream: Any = client.chat.completions.create(
        model=model, messages=messages, stream=True, **({"max_tokens": LIMIT} | fields)
    )
    texts: dict[int, str] = {}
    ended = set()
    for chunk in stream:
        for choice in chunk.choices:
            assert choice.index not in ended
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason:
                ended.add(choice.index)
    assert ended == set(texts)
    return [texts[index] for index in sorted(texts)]


def lengths(client: OpenAI, model: str) -> None:
    for field in ("max_tokens", "max_completion_tokens"):
        limit: dict[str, Any] = {"max_tokens": None, field: 3}
        answer = _ask(client, model, temperature=0, extra_body={"ignore_eos": True}, **limit)
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 3
    proved("max_tokens, max_completion_tokens, ignore_eos")
    answer = _ask(client, model, temperature=0, extra_body={"min_tokens": LIMIT})
    assert answer.usage is not None
    assert answer.usage.completion_tokens == LIMIT
    proved("min_tokens")


def stops(client: OpenAI, model: str, whole: str) -> None:
    middle = whole[len(whole) // 2 :][:3]
    expected = whole[: whole.index(middle)]
    for stop in (middle, ["never said", middle]):
        answer = _ask(client, model, temperature=0, stop=stop)
        assert _texts(answer) == [expected]
        assert answer.choices[0].finish_reason == "stop"
        assert _streamed(client, model, temperature=0, stop=stop) == [expected]
    proved("stop")


def logprobs(client: OpenAI, model: str, whole: str) -> None:
    answer = _ask(client, model, temperature=0, logprobs=True, top_logprobs=5)
    [choice] = answer.choices
    tokens = _tokens(choice)
    assert b"".join(bytes(token.bytes or ()) for token in tokens).decode() == whole == choice.message.content
    for token in tokens:
        logprobs = [top.logprob for top in token.top_logprobs]
        assert len(logprobs) == 5
        assert logprobs == sorted(logprobs, reverse=True)
        assert logprobs[0] == token.logprob <= 0
        assert token.top_logprobs[0].token == token.token
    proved("logprobs, top_logprobs")
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": QUESTION}]
    stream = client.chat.completions.create(
        model=model, messages=messages, max_tokens=LIMIT, temperature=0, logprobs=True, top_logprobs=5, stream=True
    )
    streamed: list[ChatCompletionTokenLogprob] = []
    for chunk in stream:
        for part in chunk.choices:
            if part.logprobs is not None:
                streamed += part.logprobs.content or []
    assert streamed == tokens
    proved("logprobs in streams")


def biases(client: OpenAI, model: str, whole: str) -> None:
    forced = _ask(client, model, temperature=0, max_tokens=2, logit_bias={FORCED: 100}, logprobs=True)
    first, second = _tokens(forced.choices[0])
    assert first.bytes == second.bytes
    assert _texts(forced) != [whole]
    proved("logit_bias")


def penalties(client: OpenAI, model: str) -> None:
    def different_tokens(**fields: Any) -> int:
        """How many of 24 tokens differ, after a prompt that asks to be repeated."""
        fields["extra_body"] = {"ignore_eos": True} | fields.get("extra_body", {})
        fields = {"max_tokens": 24, "temperature": 0, "logprobs": True} | fields
        answer = _ask(client, model, "Say: la la la la la la la la", **fields)
        return len({tuple(token.bytes or ()) for token in _tokens(answer.choices[0])})

    plain = different_tokens()
    assert different_tokens(frequency_penalty=2, presence_penalty=2) > plain
    assert different_tokens(extra_body={"repetition_penalty": 2}) > plain
    assert different_tokens(frequency_penalty=0, presence_penalty=0, extra_body={"repetition_penalty": 1}) == plain
    proved("presence_penalty, frequency_penalty, repetition_penalty")


def main(at: Place) -> None:
    with OpenAI(base_url=at.url, api_key="none", max_retries=0) as client:
        whole = greedy(client, at.model)
        seeds(client, at.model)
        lengths(client, at.model)
        stops(client, at.model, whole)
        logprobs(client, at.model, whole)
        biases(client, at.model, whole)
        penalties(client, at.model)


if __name__ == "__main__":
    main(place())
