"""The proof: 64 mixed requests in one continuous batch say what PEFT's own generate says of each alone."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from adapters.base_model import load_weights, open_base_model
from adapters.home import home_directory
from adapters.injections import SoftPrompt
from server.engine.config import EngineConfig
from server.engine.engine import Engine
from server.engine.loader import build_engine
from tests.engine.build import engine_of, greedy, run_to_end, soft_prompt_in, standing_still
from tests.tiny import Family, load_peft, save_tiny_adapter, tiny_model

NUM_VIRTUAL_TOKENS = (1, 3, 7, 16, 20, 33, 48, 64)
PROMPT_LENGTHS = (1, 2, 5, 16, 17, 60, 120, 333, 600)


@dataclass(frozen=True)
class Request:
    prompt_ids: list[int]
    adapter: int | None
    max_tokens: int


@dataclass(frozen=True)
class Case:
    """A base model, its adapters, 64 requests, and what PEFT answers to each of them alone."""

    load_base: Callable[[], PreTrainedModel]
    soft_prompts: list[SoftPrompt]
    requests: list[Request]
    expected: list[list[int]]


def _requests(vocab_size: int, *, longest_answer: int) -> list[Request]:
    rng = random.Random(7)
    adapters = [None, *range(len(NUM_VIRTUAL_TOKENS))]
    return [
        Request(
            prompt_ids=[rng.randrange(vocab_size) for _ in range(PROMPT_LENGTHS[i % len(PROMPT_LENGTHS)])],
            adapter=adapters[i // 2 % len(adapters)],
            max_tokens=rng.randrange(4, longest_answer),
        )
        for i in range(64)
    ]


def _alone(model: Any, request: Request) -> list[int]:
    """The greedy answer by transformers' or PEFT's own generate, without its end-of-text token."""
    ids = torch.tensor([request.prompt_ids])
    generated = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=request.max_tokens, do_sample=False
    )
    answer: list[int] = generated[0, ids.shape[1] :].tolist()
    eos = model.config.eos_token_id
    return answer[: answer.index(eos)] if eos in answer else answer


def _case(load_base: Callable[[], PreTrainedModel], directory: Path, *, vocab_size: int, longest_answer: int) -> Case:
    paths = [
        save_tiny_adapter(load_base(), directory / str(i), num_virtual_tokens=n, seed=i)
        for i, n in enumerate(NUM_VIRTUAL_TOKENS)
    ]
    oracles: dict[int | None, Any] = {None: load_base()}
    oracles |= {i: load_peft(load_base(), path) for i, path in enumerate(paths)}
    requests = _requests(vocab_size, longest_answer=longest_answer)
    expected = [_alone(oracles[request.adapter], request) for request in requests]
    return Case(load_base, [soft_prompt_in(path) for path in paths], requests, expected)


def _answers(engine: Engine, case: Case) -> list[list[int]]:
    for i, request in enumerate(case.requests):
        soft_prompt = None if request.adapter is None else case.soft_prompts[request.adapter]
        engine.add_request(i, request.prompt_ids, greedy(request.max_tokens), soft_prompt)
    tokens = run_to_end(engine)
    return [tokens[i] for i in range(len(case.requests))]


@pytest.fixture(scope="module", params=["llama", "gpt2", "bloom"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    family: Family = request.param
    return _case(lambda: tiny_model(family), tmp_path_factory.mktemp(family), vocab_size=256, longest_answer=32)


def test_the_oracle_answers_differ(case: Case) -> None:
    """Guards the proof itself: adapters change answers, and answers are not all one token."""
    assert len({tuple(answer) for answer in case.expected}) > 32
    assert len({token for answer in case.expected for token in answer}) > 32


def test_64_mixed_requests_at_once(case: Case) -> None:
    assert _answers(engine_of(case.load_base()), case) == case.expected


def test_with_a_cache_so_small_that_sequences_are_preempted(case: Case) -> None:
    engine = engine_of(case.load_base(), num_blocks=52)
    assert _answers(engine, case) == case.expected
    assert engine.stats().num_preemptions > 0


def test_with_chunks_of_16_tokens(case: Case) -> None:
    engine = engine_of(case.load_base(), max_num_seqs=16, max_num_batched_tokens=16)
    assert _answers(engine, case) == case.expected


def test_again_from_the_prefix_cache(case: Case) -> None:
    engine = engine_of(case.load_base(), num_blocks=1024)
    assert _answers(engine, case) == case.expected
    assert _answers(engine, case) == case.expected


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_64_mixed_requests_on_the_embedded_base(tmp_path: Path) -> None:
    """SmolLM2-135M in float32; also with preemption and with small chunks."""
    base = open_base_model("smollm2-135m-instruct", home=home_directory())
    cpu = torch.device("cpu")
    case = _case(
        lambda: load_weights(base.path, dtype=torch.float32, device=cpu), tmp_path, vocab_size=49_000, longest_answer=16
    )
    block_bytes = 2 * 3 * 64 * 4 * 30 * 16  # keys and values, 3 KV heads of 64, float32, 30 layers, 16 tokens
    for num_blocks, max_tokens in ((1024, 512), (60, 512), (1024, 64)):
        engine = _embedded_engine(case.load_base(), num_blocks * block_bytes, max_tokens)
        assert _answers(engine, case) == case.expected


def _embedded_engine(model: PreTrainedModel, kv_cache_bytes: int, max_num_batched_tokens: int) -> Engine:
    config = EngineConfig(
        max_model_len=800, kv_cache_bytes=kv_cache_bytes, max_num_batched_tokens=max_num_batched_tokens
    )
    return build_engine(model, fingerprint="smollm2", config=config, clock=standing_still)
