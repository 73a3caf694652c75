"""The engine on a CUDA device: it says what it says on the CPU, page by page and recorded too."""

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from adapters.fitting import LayerShape
from adapters.injections import SoftPrompt
from server.engine.attention import PagedAttention
from server.engine.batch import Batch, ScheduledSequence
from server.engine.config import EngineConfig
from server.engine.cuda.accelerator import CUDA_BLOCK_SIZE, Accelerator, find_accelerator
from server.engine.cuda.attention import VarlenAttention
from server.engine.cuda.decode import DecodeForward
from server.engine.engine import Engine
from server.engine.kv_cache import KVCache
from server.engine.kv_memory import default_kv_cache_bytes
from server.engine.loader import build_engine
from server.engine.sampling_params import SamplingParams
from server.engine.self_check import tolerance_of
from server.engine.sequence import Sequence
from server.engine.step_layout import SEES_ALL, Reach
from tests.engine.build import engine_of, greedy, run_to_end, runner_of, standing_still
from tests.engine.noting import noting_of
from tests.engine.peft_kinds import adapter_of, every_kind
from tests.engine.test_prompt_logprobs import Prompt, logprobs_alone, require_equal, scored
from tests.tiny import HIDDEN_SIZE, Family, tiny_model

pytestmark = pytest.mark.gpu

COMMON: dict[str, Any] = {
    "vocab_size": 257,
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "initializer_range": 0.1,
    "bos_token_id": 256,
    "eos_token_id": 256,
    "pad_token_id": 256,
}
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**COMMON)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**COMMON)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**COMMON, sliding_window=300)),
}
BLOCK_BYTES = 2 * 3 * 2 * 64 * CUDA_BLOCK_SIZE * 2
"""Keys and values, 3 layers, 2 KV heads of 64, bfloat16."""
LENGTHS = (1, 2, 255, 256, 257, 700)


def _on_cuda(family: Family) -> PreTrainedModel:
    model = tiny_model(family)
    torch.nn.Module.to(model, torch.device("cuda"))
    return model


def _in_bfloat16(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = MODELS[name]()
    model.requires_grad_(requires_grad=False)
    torch.nn.Module.to(model.train(mode=False), torch.device("cuda"), torch.bfloat16)
    return model


def _accelerator() -> Accelerator:
    accelerator = find_accelerator(torch.device("cuda"), torch.bfloat16)
    assert accelerator is not None, "this device or this torch has no paged attention"
    return accelerator


def _engine(model: PreTrainedModel, accelerator: Accelerator | None, **settings: Any) -> Engine:
    config = {"max_model_len": 1500, "kv_cache_bytes": 200 * BLOCK_BYTES, **settings}
    return build_engine(
        model, fingerprint="tiny", config=EngineConfig(**config), accelerator=accelerator, clock=standing_still
    )


def _answers(engine: Engine, *, width: int = HIDDEN_SIZE) -> dict[int, list[int]]:
    """32 mixed requests, greedy and seeded, on the base and on three soft prompts."""
    rng = random.Random(3)
    soft_prompts = [
        SoftPrompt(str(n), torch.randn(n, width, generator=torch.Generator().manual_seed(n)) / 2) for n in (3, 16, 40)
    ]
    for number in range(32):
        prompt = [rng.randrange(256) for _ in range(rng.choice((1, 7, 30, 200)))]
        params = greedy(16) if number % 3 else SamplingParams(max_tokens=16, top_p=0.9, top_k=50, seed=number)
        engine.add_request(number, prompt, params, ([None, *soft_prompts])[number % 4])
    return run_to_end(engine)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
def test_cuda_answers_as_the_cpu_does(family: Family) -> None:
    on_cuda = engine_of(_on_cuda(family))
    assert _answers(on_cuda) == _answers(engine_of(tiny_model(family)))


def test_cuda_preempts_and_recovers() -> None:
    engine = engine_of(_on_cuda("llama"), num_blocks=52)
    assert _answers(engine) == _answers(engine_of(tiny_model("llama")))


@pytest.mark.parametrize("reach", [SEES_ALL, Reach(window=300), Reach(window=1)], ids=["all", "window", "one"])
@pytest.mark.parametrize("lengths", [((0, 700), (300, 1), (256, 40), (511, 1)), ((700, 1), (0, 1), (255, 1))])
def test_the_kernel_attends_as_gathered_keys_do(reach: Reach, lengths: tuple[tuple[int, int], ...]) -> None:
    """In bfloat16; blocks that belong to nobody hold what is not a number."""
    torch.manual_seed(0)
    device, shape = torch.device("cuda"), LayerShape(2, 64, 64)
    caches = [
        KVCache({0: shape}, num_blocks=16, block_size=CUDA_BLOCK_SIZE, dtype=torch.bfloat16, device=device)
        for _ in range(2)
    ]
    items, blocks = [], list(range(1, 16))
    for tensors in zip((caches[0].keys[0], caches[0].values[0]), (caches[1].keys[0], caches[1].values[0]), strict=True):
        for tensor in tensors:
            tensor.fill_(torch.nan)
    for number, (cached, new) in enumerate(lengths):
        sequence = Sequence.create(number, [0] * (cached + new), SamplingParams(max_tokens=1), cache_seed=b"")
        sequence.block_table = [blocks.pop() for _ in range(-(-(cached + new) // CUDA_BLOCK_SIZE))]
        for position in range(cached):
            block, offset = divmod(position, CUDA_BLOCK_SIZE)
            slot = sequence.block_table[block] * CUDA_BLOCK_SIZE + offset
            key, value = torch.randn(2, 2, 64, device=device, dtype=torch.bfloat16)
            for cache in caches:
                cache.keys[0][slot], cache.values[0][slot] = key, value
        items.append(ScheduledSequence(sequence, cached, new))
    batch = Batch(tuple(items), ())
    query = torch.randn(4, batch.num_tokens, 64, device=device, dtype=torch.bfloat16)
    key, value = torch.randn(2, 2, batch.num_tokens, 64, device=device, dtype=torch.bfloat16)
    outputs = []
    for attention in (
        VarlenAttention(caches[0], _accelerator().attend, frozenset({0})),
        PagedAttention(caches[1]),
    ):
        with attention.step(batch):
            outputs.append(attention.attend(0, query, key, value, scale=0.125, reach=reach))
    assert torch.allclose(outputs[0].float(), outputs[1].float(), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("chunk", [64, 10_000])
@pytest.mark.parametrize("name", MODELS)
def test_page_by_page_in_bfloat16_is_as_near_the_stock_model_as_gathering_is(
    name: str, chunk: int, caplog: pytest.LogCaptureFixture
) -> None:
    """In standard deviations of the float32 model's logits, after prompts of up to three blocks and a decoded token."""
    with caplog.at_level(logging.WARNING):
        engine = _engine(_in_bfloat16(name), _accelerator())
    assert isinstance(runner_of(engine)._forward, DecodeForward), caplog.text
    exact = torch.nn.Module.to(_in_bfloat16(name), torch.float32)
    prompts = [[(number * 31 + i * 7) % 256 for i in range(length)] for number, length in enumerate(LENGTHS)]
    expected = [exact(input_ids=torch.tensor([prompt], device="cuda")).logits[0, -1] for prompt in prompts]
    paged = _logits(engine, prompts, chunk=chunk)
    gathered = _logits(_engine(_in_bfloat16(name), None), prompts, chunk=chunk)
    for made in (paged, gathered):
        for row, wanted in zip(made, expected, strict=True):
            assert float((row - wanted).std() / wanted.std()) < 0.1


def _logits(engine: Engine, prompts: list[list[int]], *, chunk: int) -> list[torch.Tensor]:
    """Float32 logits after each prompt: all but the last token in chunks, the last ones in a step of their own."""
    size = engine.config.block_size
    blocks = iter(range(200))
    sequences = [
        Sequence.create(number, prompt, SamplingParams(max_tokens=1), cache_seed=b"")
        for number, prompt in enumerate(prompts)
    ]
    for sequence in sequences:
        sequence.block_table = [next(blocks) for _ in range(-(-sequence.num_tokens // size))]
    with torch.inference_mode():
        while behind := [each for each in sequences if each.num_uncomputed_tokens > 1]:
            items = [
                ScheduledSequence(each, each.num_computed_tokens, min(chunk, each.num_uncomputed_tokens - 1))
                for each in behind
            ]
            runner_of(engine).logits(Batch(tuple(items), ()), {})
            for item in items:
                item.sequence.num_computed_tokens = item.stop
        last = [ScheduledSequence(each, each.num_tokens - 1, 1) for each in sequences]
        return list(runner_of(engine).logits(Batch(tuple(last), ()), {}).float())


@pytest.mark.parametrize("name", MODELS)
def test_graphs_answer_as_the_same_calls_do(name: str) -> None:
    """The same kernels over the same buffers, launched by Python: equal bit by bit."""
    accelerator = _accelerator()
    graphs = _engine(_in_bfloat16(name), accelerator)
    calls = _engine(_in_bfloat16(name), replace(accelerator, record=lambda run: run))
    assert isinstance(runner_of(graphs)._forward, DecodeForward)
    assert _answers(graphs, width=256) == _answers(calls, width=256)


def test_graphs_with_preemption_answer_to_the_end() -> None:
    """All twelve need a second block after a few tokens, and one more is there than the first ones take."""
    engine = _engine(_in_bfloat16("llama"), _accelerator(), kv_cache_bytes=14 * BLOCK_BYTES)
    for number in range(12):
        prompt = [(number * 31 + i * 7) % 256 for i in range(250)]
        engine.add_request(number, prompt, SamplingParams(max_tokens=20, temperature=0))
    assert [len(tokens) for tokens in run_to_end(engine).values()] == [20] * 12
    assert engine.stats().num_preemptions > 0


def test_every_kind_of_adapter_answers_as_on_the_cpu() -> None:
    """In float32: given KV and changed weights mixed with soft prompts and the base, rows side by side and apart."""
    answers = []
    for engine in (engine_of(_on_cuda("llama")), engine_of(tiny_model("llama"))):
        for number, adapter in enumerate([*every_kind("llama"), *every_kind("llama")]):
            engine.add_request(number, [number, 2, 3], greedy(12), adapter.injection)
        answers.append(run_to_end(engine))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("kind", ["prefix tuning", "lora", "rslora", "ia3"])
def test_adapters_in_bfloat16_are_near_float32(kind: str) -> None:
    """The first logits and those after recorded or eager decode steps, in standard deviations."""
    adapter = adapter_of("llama", kind)
    model = _on_cuda("llama")
    torch.nn.Module.to(model, torch.bfloat16)
    engine = _engine(model, _accelerator())
    noting, prompt = noting_of(engine), list(range(40, 200))
    engine.add_request(0, prompt, greedy(6), adapter.injection)
    engine.add_request(1, prompt, greedy(6))
    ids = prompt + run_to_end(engine)[0]
    made = torch.stack(noting.logits_of[0]).float().cpu()
    with torch.inference_mode():
        logits = adapter.model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).logits[0]
    expected = logits[len(prompt) - 1 :][: len(made)]
    assert float((made - expected).std() / expected.std()) < tolerance_of(torch.bfloat16, is_int8=False)


def test_prompts_are_as_likely_as_on_the_cpu() -> None:
    """In float32, of every kind of adapter, beside decoding neighbours."""
    adapters = every_kind("llama")
    prompts = [
        Prompt([7 * number, *(40 + token % 200 for token in range(30 * number))], adapter)
        for number, adapter in enumerate(adapters)
    ]
    engine = engine_of(_on_cuda("llama"))
    for number, prompt in enumerate(prompts):
        engine.add_request(number, prompt.token_ids, greedy(20), prompt.adapter.injection)
    for made, prompt in zip(scored(engine, prompts), prompts, strict=True):
        require_equal(made, logprobs_alone(prompt.adapter.model, prompt.token_ids), prompt.token_ids)


@pytest.mark.parametrize("name", MODELS)
def test_prompts_in_bfloat16_are_as_likely_as_near_float32(name: str) -> None:
    """In standard deviations; prompts of one token more than is scored in a step are in, whose last is recorded."""
    prompts = [[(number * 31 + i * 7) % 256 for i in range(length)] for number, length in enumerate((2, 129, 257, 700))]
    exact = torch.nn.Module.to(_in_bfloat16(name), torch.float32)
    made = scored(
        _engine(_in_bfloat16(name), _accelerator()), [Prompt(ids, adapter_of("llama", "base")) for ids in prompts]
    )
    for ids, report in zip(prompts, made, strict=True):
        with torch.inference_mode():
            logits = exact(input_ids=torch.tensor([ids], device="cuda")).logits[0, :-1]
        expected = logits.log_softmax(dim=-1).gather(1, torch.tensor(ids[1:], device="cuda")[:, None])[:, 0].cpu()
        difference = torch.from_numpy(report.logprobs) - expected
        assert float(difference.square().mean().sqrt() / logits.std()) < 0.1


@contextmanager
def _no_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("is_accelerated", [True, False])
def test_a_step_waits_for_nothing_before_its_logits(is_accelerated: bool) -> None:  # noqa: FBT001
    """A prompt with a soft prompt beside a decoding sequence, then a step that only decodes."""
    engine = _engine(_in_bfloat16("llama"), _accelerator() if is_accelerated else None)
    _answers(engine, width=256)
    engine.add_request(0, list(range(40)), greedy(20))
    engine.step()
    engine.step()
    engine.add_request(1, list(range(90)), greedy(20), SoftPrompt("new", torch.randn(30, 256)))
    soft_prompts = engine._injections
    for _ in range(4):
        batch = engine._scheduler.schedule()
        with torch.inference_mode(), _no_waiting():
            runner_of(engine).logits(batch, soft_prompts)
        engine._scheduler.postprocess(batch, runner_of(engine).run(batch, soft_prompts, {}))


def test_the_default_cache_is_half_of_the_free_memory_and_leaves_room_to_compute() -> None:
    model = _in_bfloat16("llama")
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    assert default_kv_cache_bytes(torch.device("cuda")) == pytest.approx(free / 2, rel=0.01)
    before = torch.cuda.memory_allocated()
    engine = _engine(model, _accelerator(), kv_cache_bytes=None)
    taken = torch.cuda.memory_allocated() - before
    assert taken == pytest.approx(free / 2, rel=0.1)
    assert len(_answers(engine, width=256)) == 32
