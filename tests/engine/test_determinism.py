"""Tokens depend on prompt, adapter, parameters and seed alone: exactly in float32, and as measured in bfloat16."""

import sys
from pathlib import Path

import pytest
import torch

from adapters.base_model import open_base_model
from adapters.chat_format import default_chat_format
from adapters.home import home_directory
from adapters.injections import SoftPrompt
from server.engine.config import EngineConfig
from server.engine.engine import Engine
from server.engine.loader import load_engine
from server.engine.sampling_params import SamplingParams
from tests.engine.build import engine_of, run_to_end, soft_prompt_in
from tests.tiny import Family, save_tiny_adapter, tiny_model

PROMPT = [i * 37 % 256 for i in range(70)]
OURS = 1

SAMPLED = [
    SamplingParams(max_tokens=40, temperature=1.0, seed=5),
    SamplingParams(max_tokens=40, temperature=0.7, top_p=0.9, seed=6),
    SamplingParams(max_tokens=40, temperature=1.3, top_k=20, seed=7),
]


@pytest.fixture(params=["llama", "gpt2", "bloom"])
def family(request: pytest.FixtureRequest) -> Family:
    chosen: Family = request.param
    return chosen


@pytest.fixture(params=[0, 20], ids=["base", "adapter"])
def soft_prompt(request: pytest.FixtureRequest, family: Family, tmp_path: Path) -> SoftPrompt | None:
    if request.param == 0:
        return None
    return soft_prompt_in(save_tiny_adapter(tiny_model(family), tmp_path, num_virtual_tokens=request.param, seed=3))


def _add(engine: Engine, params: SamplingParams, soft_prompt: SoftPrompt | None) -> None:
    engine.add_request(OURS, PROMPT, params, soft_prompt)


def _add_neighbours(engine: Engine, soft_prompt: SoftPrompt | None, *, first_id: int) -> None:
    """Twelve requests of many lengths and settings, half of them on the same adapter and with the same beginning."""
    for i in range(12):
        prompt = PROMPT[: 5 * i] + [(i * 11 + j) % 256 for j in range(1 + 9 * i)]
        params = SamplingParams(max_tokens=10 + 5 * i, temperature=i / 6, seed=i)
        engine.add_request(first_id + i, prompt, params, soft_prompt if i % 2 else None)


@pytest.mark.parametrize("params", SAMPLED, ids=["plain", "top-p", "top-k"])
def test_the_same_tokens_in_every_company(
    family: Family, soft_prompt: SoftPrompt | None, params: SamplingParams
) -> None:
    alone = engine_of(tiny_model(family))
    _add(alone, params, soft_prompt)
    expected = run_to_end(alone)[OURS]
    assert len(set(expected)) > 5

    crowded = engine_of(tiny_model(family))
    _add_neighbours(crowded, soft_prompt, first_id=10)
    for _ in range(4):
        crowded.step()
    _add(crowded, params, soft_prompt)
    _add_neighbours(crowded, soft_prompt, first_id=30)
    assert run_to_end(crowded)[OURS] == expected

    chunked = engine_of(tiny_model(family), max_num_seqs=16, max_num_batched_tokens=16)
    _add(chunked, params, soft_prompt)
    assert run_to_end(chunked)[OURS] == expected

    cached = engine_of(tiny_model(family))
    _add_neighbours(cached, soft_prompt, first_id=10)
    run_to_end(cached)
    for _ in range(2):
        _add(cached, params, soft_prompt)
        sequence = cached._sequences[OURS]
        assert run_to_end(cached)[OURS] == expected
    assert sequence.num_cached_tokens >= 48


def test_the_same_tokens_after_preemption(family: Family, soft_prompt: SoftPrompt | None) -> None:
    """Our request is the youngest in a cache that cannot hold all to their end."""
    params = SAMPLED[0]
    alone = engine_of(tiny_model(family))
    _add(alone, params, soft_prompt)
    expected = run_to_end(alone)[OURS]
    engine = engine_of(tiny_model(family), num_blocks=24, max_model_len=320)
    for i in range(3):
        engine.add_request(10 + i, [i + 1] * 60, SamplingParams(max_tokens=120, temperature=1, seed=i))
    engine.step()
    _add(engine, params, soft_prompt)
    ours = engine._sequences[OURS]
    assert run_to_end(engine)[OURS] == expected
    assert ours.num_preemptions > 0


QUESTIONS = [
    "Why is the sky blue?",
    "Write a short poem about the sea.",
    "What is the capital of Australia, and why is it not Sydney?",
    "Explain how a bicycle stays upright.",
    "Give me three ideas for a cheap dinner.",
    "How do I sort a list in Python?",
    "Tell me a story about a lost dog.",
    "What are the benefits of sleeping well?",
    "Translate 'good morning' into French.",
    "Who wrote Hamlet, and when?",
    "How many legs do eight spiders have?",
    "Describe an apple to somebody who has never seen one.",
    "What is photosynthesis?",
    "Name five rivers in Europe.",
    "How can I learn to play the guitar?",
    "What happened in the year 1969?",
]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_share_of_greedy_tokens_that_company_leaves_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """The embedded base in bfloat16: where two tokens are almost as likely, rounding decides, and batches round anew.

    The stock model's share is printed, not asserted; in float32, and in bfloat16 on the native decoder, it is all.
    """
    base = open_base_model("smollm2-135m-instruct", home=home_directory())
    chat_format = default_chat_format(base.tokenizer)
    prompts = [chat_format.encode([{"role": "user", "content": text}], base.tokenizer) for text in QUESTIONS]
    params = SamplingParams(max_tokens=48, temperature=0)
    native = home_directory() / "native"
    for label, dtype, native_cache in (
        ("float32", torch.float32, None),
        ("bfloat16, stock model", torch.bfloat16, None),
        ("bfloat16, native decoder where there is one", torch.bfloat16, native),
    ):
        engine = load_engine(
            base.path,
            fingerprint="base",
            device=torch.device("cpu"),
            dtype=dtype,
            config=EngineConfig(max_model_len=512, kv_cache_bytes=1 << 28),
            native_cache=native_cache,
        )
        alone: list[list[int]] = []
        for i, prompt in enumerate(prompts):
            engine.add_request(i, prompt, params, tenant_salt=b"alone")
            alone.append(run_to_end(engine)[i])
        for i, prompt in enumerate(prompts):
            engine.add_request(i, prompt, params, tenant_salt=b"together")
        together = run_to_end(engine)
        pairs = [pair for i, tokens in enumerate(alone) for pair in zip(tokens, together[i], strict=True)]
        share = sum(one == other for one, other in pairs) / len(pairs)
        answers = sum(tokens == together[i] for i, tokens in enumerate(alone))
        with capsys.disabled():
            sys.stdout.write(
                f"\n{label}: {share:.1%} of {len(pairs)} greedy tokens are equal alone and among {len(prompts)}, "
                f"{answers} of {len(prompts)} answers whole\n"
            )
        assert share == 1 or dtype is torch.bfloat16
