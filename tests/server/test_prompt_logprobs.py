"""/v1/completions with echo and logprobs: how likely prompts are, as transformers has it, whole and streamed."""

import asyncio
from collections.abc import AsyncIterator
from operator import itemgetter
from typing import Any

import httpx
import pytest
import torch
from openai import AsyncOpenAI
from openai.types import Completion
from openai.types.completion_choice import CompletionChoice
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from adapters.injections import SoftPrompt
from adapters.weights import read_adapter
from server.text.echo import PromptTexts
from server.text.request import TextPrompt, TokenPrompt
from tests.server.building import Running, multipart, soft_prompt_files
from tests.tiny import tiny_model, tiny_tokenizer

PROMPT = "once upon a time, in 世界"
FILES = soft_prompt_files(5)


@pytest.fixture
async def client(live: Running) -> AsyncIterator[AsyncOpenAI]:
    async with httpx.AsyncClient(base_url=live.url) as http:
        answer = await http.post("/v1/adapters", data={"name": "team"}, files=multipart(FILES))
        assert answer.status_code in {200, 201}
    async with AsyncOpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def _choices(client: AsyncOpenAI, **fields: Any) -> list[CompletionChoice]:
    """The whole answer's; a stream has the same, piece by piece, but for how sums are rounded beside others."""
    asked: dict[str, Any] = {"model": "tiny-llama", "prompt": PROMPT, "temperature": 0, "echo": True, "logprobs": 2}
    asked |= fields
    answer: Completion = await client.completions.create(**asked)
    pieces: dict[int, list[CompletionChoice]] = {}
    async for chunk in await client.completions.create(**asked, stream=True):
        for piece in chunk.choices:
            pieces.setdefault(piece.index, []).append(piece)
    for choice in answer.choices:
        own = pieces[choice.index]
        assert "".join(piece.text for piece in own) == choice.text
        assert choice.finish_reason == own[-1].finish_reason
        if choice.logprobs is not None:
            streamed = [piece.logprobs for piece in own if piece.logprobs is not None]
            assert [token for piece in streamed for token in piece.tokens or []] == choice.logprobs.tokens
            assert [offset for piece in streamed for offset in piece.text_offset or []] == choice.logprobs.text_offset
            told = [logprob for piece in streamed for logprob in piece.token_logprobs or []]
            assert told == pytest.approx(choice.logprobs.token_logprobs, abs=1e-5)
            assert sum(len(piece.top_logprobs or []) for piece in streamed) == len(choice.logprobs.top_logprobs or [])
    return answer.choices


def _expected(token_ids: list[int], model: str) -> torch.Tensor:
    """Log-probabilities `[N - 1, vocab_size]` after all but the last of the ids, by one plain pass of transformers."""
    base = tiny_model("llama")
    with torch.inference_mode():
        embeddings = base.get_input_embeddings()(torch.tensor([token_ids]))
        if model == "team":
            injection = read_adapter("team", FILES).injection
            assert isinstance(injection, SoftPrompt)
            embeddings = torch.cat([injection.embeddings[None], embeddings], dim=1)
        logits: torch.Tensor = base(inputs_embeds=embeddings).logits[0]
    return logits[-len(token_ids) : -1].double().log_softmax(dim=-1)


def _require_equal(choice: CompletionChoice, model: str, token_ids: list[int]) -> None:
    logprobs = choice.logprobs
    assert logprobs is not None
    assert logprobs.token_logprobs is not None
    assert logprobs.top_logprobs is not None
    first: Any = (logprobs.token_logprobs[0], logprobs.top_logprobs[0])
    assert first == (None, None)
    expected = _expected(token_ids, model)
    own = expected.gather(1, torch.tensor(token_ids[1:])[:, None])[:, 0].tolist()
    assert logprobs.token_logprobs[1 : len(token_ids)] == pytest.approx(own, abs=1e-4)
    for told, likeliest in zip(logprobs.top_logprobs[1:], expected.topk(2).values.tolist(), strict=False):
        assert sorted(told.values())[-2:] == pytest.approx(likeliest[::-1], abs=1e-4)


@pytest.mark.parametrize("model", ["tiny-llama", "team"])
async def test_prompts_are_as_likely_as_transformers_says(client: AsyncOpenAI, model: str) -> None:
    """Without an answer; from text and from ids; twice, which the prefix cache must not shorten."""
    token_ids = tiny_tokenizer()(PROMPT)["input_ids"]
    for prompt in (PROMPT, token_ids, token_ids):
        (choice,) = await _choices(client, model=model, prompt=prompt, max_tokens=0)
        assert (choice.text, choice.finish_reason) == (PROMPT, "length")
        assert choice.logprobs is not None
        assert len(choice.logprobs.tokens or []) == len(token_ids)
        _require_equal(choice, model, token_ids)


async def test_many_at_once_with_long_prompts_and_answers(client: AsyncOpenAI) -> None:
    prompts = [PROMPT * count for count in (1, 7, 25)]
    ids = [tiny_tokenizer()(prompt)["input_ids"] for prompt in prompts]
    models = ("tiny-llama", "team") * 2
    answers = await asyncio.gather(
        *(_choices(client, model=model, prompt=prompts, max_tokens=9, n=2) for model in models)
    )
    for model, choices in zip(models, answers, strict=True):
        for number, choice in enumerate(choices):
            assert choice.text.startswith(prompts[number // 2])
            _require_equal(choice, model, ids[number // 2])
            assert choice.logprobs is not None
            for token, offset in zip(choice.logprobs.tokens or [], choice.logprobs.text_offset or [], strict=True):
                assert token.startswith("bytes:") or choice.text[offset : offset + len(token)] == token


async def test_an_answer_is_the_same_with_its_echo(client: AsyncOpenAI) -> None:
    (plain,) = await _choices(client, echo=False, max_tokens=12)
    (echoed,) = await _choices(client, max_tokens=12)
    assert plain.logprobs is not None
    assert echoed.logprobs is not None
    assert echoed.text == PROMPT + plain.text
    num_answered = len(plain.logprobs.tokens or [])
    assert (echoed.logprobs.token_logprobs or [])[-num_answered:] == pytest.approx(plain.logprobs.token_logprobs)


async def test_as_evaluation_harnesses_ask(client: AsyncOpenAI) -> None:
    """Ids of a context and its continuation, one token that is thrown away, and whether each is the likeliest."""
    context, continuation = tiny_tokenizer()("once upon")["input_ids"], tiny_tokenizer()(" a")["input_ids"]
    (choice,) = await _choices(client, prompt=context + continuation, max_tokens=1, logprobs=1, seed=1234)
    logprobs = choice.logprobs
    assert logprobs is not None
    own, top = (logprobs.token_logprobs or [])[len(context) : -1], (logprobs.top_logprobs or [])[len(context) : -1]
    expected = _expected(context + continuation, "tiny-llama")[len(context) - 1 :]
    assert sum(own) == pytest.approx(float(expected[range(2), continuation].sum()), abs=1e-4)
    likeliest = [max(entry.items(), key=itemgetter(1))[0] for entry in top]
    are_likeliest = (expected.argmax(dim=-1) == torch.tensor(continuation)).tolist()
    assert [
        token == best for token, best in zip((logprobs.tokens or [])[len(context) : -1], likeliest, strict=True)
    ] == (are_likeliest)


async def test_without_logprobs_the_prompt_is_told_alone(client: AsyncOpenAI) -> None:
    (choice,) = await _choices(client, logprobs=None, max_tokens=0)
    assert (choice.text, choice.logprobs) == (PROMPT, None)
    answer = await client.completions.create(model="tiny-llama", prompt=PROMPT, max_tokens=0, echo=True)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(PROMPT.encode()), 0)


def _words() -> Tokenizer:
    """A tokenizer that marks words by U+2581, and puts `<s>` before a text that may have one of its own."""
    tokenizer = Tokenizer(
        models.Unigram([("<unk>", 0.0), ("\u2581", -9.0), ("\u2581on", -1.0), ("ce", -1.0), ("\u2581up", -1.0)], 0)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 5)])
    return tokenizer


def test_offsets_are_those_of_the_text_that_is_told() -> None:
    """A space that the decoder leaves out and a token that the tokenizer adds move nothing."""
    tokenizer = _words()
    token_ids = tokenizer.encode("once up").ids
    texts = PromptTexts(tokenizer)
    told = texts.of(TextPrompt("once up"), token_ids, with_offsets=True)
    assert (told.text, list(told.offsets)) == ("once up", [0, 0, 2, 4])
    told = texts.of(TokenPrompt(tuple(token_ids)), token_ids, with_offsets=True)
    assert told.text[3:] in {"once up", " once up"}
    assert [told.text[offset:].lstrip()[:2] for offset in told.offsets] == ["<s", "on", "ce", "up"]
