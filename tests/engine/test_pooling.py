"""Pooled requests: the mean of the stock model's own last hidden states, whatever is computed beside them."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from adapters.injections import SoftPrompt
from server.engine.async_engine import AsyncEngine
from server.engine.engine import Engine
from server.engine.errors import PromptInvalid, SequenceFailed
from server.engine.pooling import MeanPool
from tests.engine.build import engine_of, greedy, run_to_end, soft_prompt_in
from tests.tiny import Family, save_tiny_adapter, tiny_model

LENGTHS = (1, 2, 5, 16, 17, 60, 120, 333)
NUM_VIRTUAL_TOKENS = (3, 16, 40)


@dataclass(frozen=True)
class Text:
    token_ids: list[int]
    soft_prompt: SoftPrompt | None


def _texts(soft_prompts: list[SoftPrompt | None]) -> list[Text]:
    rng = random.Random(3)
    lengths = [LENGTHS[i % len(LENGTHS)] for i in range(32)]
    return [
        Text([rng.randrange(256) for _ in range(length)], soft_prompts[i // 3 % len(soft_prompts)])
        for i, length in enumerate(lengths)
    ]


def mean_alone(model: PreTrainedModel, text: Text) -> NDArray[np.float32]:
    """What transformers says of one text alone, before the engine takes the model."""
    with torch.inference_mode():
        embedded = model.get_input_embeddings()(torch.tensor([text.token_ids]))
        num_virtual_tokens = 0
        if text.soft_prompt is not None:
            num_virtual_tokens = text.soft_prompt.num_virtual_tokens
            embedded = torch.cat([text.soft_prompt.embeddings[None].to(embedded), embedded], dim=1)
        states = model.base_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
        mean: NDArray[np.float32] = states[0, num_virtual_tokens:].double().mean(dim=0).float().numpy()
    return mean


def pooled(engine: Engine, texts: list[Text], *, first_id: int = 1000) -> list[NDArray[np.float32]]:
    """Run everything that waits to its end, these texts among it."""
    for number, text in enumerate(texts):
        engine.add_request(first_id + number, text.token_ids, None, text.soft_prompt, is_pooled=True)
    means = {}
    while engine.has_work:
        for output in engine.step():
            assert output.error is None, output.error
            if output.mean_hidden is not None:
                assert output.is_finished
                means[output.request_id] = output.mean_hidden
        engine.check_integrity()
    return [means[first_id + number] for number in range(len(texts))]


@pytest.fixture(params=["llama", "gpt2", "bloom"])
def family(request: pytest.FixtureRequest) -> Family:
    name: Family = request.param
    return name


@pytest.fixture
def soft_prompts(family: Family, tmp_path: Path) -> list[SoftPrompt | None]:
    paths = [
        save_tiny_adapter(tiny_model(family), tmp_path / str(n), num_virtual_tokens=n, seed=n)
        for n in NUM_VIRTUAL_TOKENS
    ]
    return [None, *map(soft_prompt_in, paths)]


@pytest.mark.parametrize(
    ("num_blocks", "max_num_batched_tokens", "preempts"), [(512, 512, False), (512, 16, False), (30, 512, True)]
)
def test_32_mixed_texts_beside_decoding_neighbours(
    family: Family,
    soft_prompts: list[SoftPrompt | None],
    num_blocks: int,
    max_num_batched_tokens: int,
    *,
    preempts: bool,
) -> None:
    texts = _texts(soft_prompts)
    expected = [mean_alone(tiny_model(family), text) for text in texts]
    engine = engine_of(
        tiny_model(family),
        num_blocks=num_blocks,
        max_model_len=440,
        max_num_seqs=16,
        max_num_batched_tokens=max_num_batched_tokens,
    )
    for number, text in enumerate(texts[:8]):
        engine.add_request(number, text.token_ids[:60], greedy(60), text.soft_prompt)
    for _ in range(3):
        engine.step()
    for mean, wanted in zip(pooled(engine, texts), expected, strict=True):
        np.testing.assert_allclose(mean, wanted, rtol=1e-5, atol=1e-5)
    assert (engine.stats().num_preemptions > 0) is preempts


def test_neighbours_answer_as_they_do_alone(family: Family, soft_prompts: list[SoftPrompt | None]) -> None:
    texts = _texts(soft_prompts)
    alone, beside = engine_of(tiny_model(family)), engine_of(tiny_model(family))
    for engine in (alone, beside):
        for number, text in enumerate(texts[:6]):
            engine.add_request(number, text.token_ids, greedy(20), text.soft_prompt)
    for number, text in enumerate(texts):
        beside.add_request(1000 + number, text.token_ids, None, text.soft_prompt, is_pooled=True)
    answers = run_to_end(beside)
    assert run_to_end(alone) == {number: answers[number] for number in range(6)}


def test_the_prefix_cache_hides_no_token(family: Family, soft_prompts: list[SoftPrompt | None]) -> None:
    """A text that a chat or an earlier one has left in the cache is pooled whole; virtual tokens are computed once."""
    texts = _texts(soft_prompts)
    engine = engine_of(tiny_model(family))
    for number, text in enumerate(texts):
        engine.add_request(number, text.token_ids, greedy(1), text.soft_prompt)
    run_to_end(engine)
    num_virtual_tokens = engine.stats().num_virtual_tokens_computed
    for _ in range(2):
        for mean, text in zip(pooled(engine, texts), texts, strict=True):
            np.testing.assert_allclose(mean, mean_alone(tiny_model(family), text), rtol=1e-5, atol=1e-5)
    assert engine.stats().num_virtual_tokens_computed == num_virtual_tokens


def test_a_pooled_text_is_not_kept_in_the_cache_but_its_virtual_tokens_are(tmp_path: Path) -> None:
    soft_prompt = soft_prompt_in(save_tiny_adapter(tiny_model("llama"), tmp_path, num_virtual_tokens=20, seed=1))
    engine = engine_of(tiny_model("llama"))
    token_ids = list(range(100))
    pooled(engine, [Text(token_ids, soft_prompt)])
    assert engine.stats().num_virtual_tokens_computed == 20
    engine.add_request(1, token_ids, greedy(1), soft_prompt)
    outputs = engine.step()
    assert outputs[0].num_cached_tokens == 0
    assert engine.stats().num_virtual_tokens_computed == 20


def test_what_is_not_a_number_fails_alone() -> None:
    poison = SoftPrompt("poison", torch.full((4, 64), float("nan")))
    engine = engine_of(tiny_model("llama"))
    good = Text(list(range(40)), None)
    engine.add_request(1, list(range(30)), None, poison, is_pooled=True)
    engine.add_request(2, good.token_ids, None, is_pooled=True)
    outputs = {output.request_id: output for output in engine.step()}
    assert isinstance(outputs[1].error, SequenceFailed)
    assert outputs[1].mean_hidden is None
    assert outputs[2].mean_hidden is not None
    np.testing.assert_allclose(outputs[2].mean_hidden, mean_alone(tiny_model("llama"), good), rtol=1e-5, atol=1e-5)
    engine.check_integrity()


def test_a_text_without_a_real_token_is_refused() -> None:
    engine = engine_of(tiny_model("llama"))
    with pytest.raises(PromptInvalid):
        engine.add_request(1, [], None, SoftPrompt("some", torch.zeros(4, 64)), is_pooled=True)


async def test_through_the_engines_thread() -> None:
    text = Text(list(range(50)), None)
    engine = AsyncEngine(engine_of(tiny_model("llama")))
    engine.start()
    try:
        mean = await engine.embed(text.token_ids)
        np.testing.assert_allclose(mean, mean_alone(tiny_model("llama"), text), rtol=1e-5, atol=1e-5)
        with pytest.raises(PromptInvalid):
            await engine.embed([])
    finally:
        await engine.stop(grace_seconds=0)


def test_a_pool_begins_anew_where_its_sequence_does() -> None:
    pool = MeanPool(first=2)
    pool.add(np.array([1.0, 2.0]), start=0, stop=3)
    pool.add(np.array([3.0, 4.0]), start=3, stop=5)
    np.testing.assert_allclose(pool.mean(), [4 / 3, 2.0])
    pool.add(np.array([5.0, 7.0]), start=2, stop=6)
    np.testing.assert_allclose(pool.mean(), [1.25, 1.75])
