"""The native decoder against the stock model, on tiny bfloat16 models; skipped where CPU or compiler cannot have it."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from adapters.injections import SoftPrompt
from server.engine.batch import Batch, ScheduledSequence
from server.engine.block_manager import BlockManager
from server.engine.config import EngineConfig
from server.engine.engine import Engine
from server.engine.errors import ModelUnsupported, NativeUnavailable
from server.engine.forward import Forward
from server.engine.loader import build_engine
from server.engine.native import library
from server.engine.native.forward import BLOCK_SIZE, NativeForward
from server.engine.native.library import compile_library, load_library
from server.engine.native.weights import decoder_shape
from server.engine.sampling_params import SamplingParams
from server.engine.sequence import Sequence
from server.engine.step_inputs import StepInputs
from tests.engine.build import run_to_end, standing_still
from tests.engine.native_models import COMMON, MODELS, native_model
from tests.native import require_native
from tests.tiny import tiny_model

BLOCK_BYTES = 2 * 3 * 2 * 16 * 16 * 2
"""Keys and values, 3 layers, 2 KV heads of 16, 16 tokens, bfloat16."""
LENGTHS = (1, 600, 15, 16, 17, 70)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the compiled library in it."""
    return require_native(tmp_path_factory.mktemp("native"))


def _engine(model: PreTrainedModel, cache: Path | None, **settings: Any) -> Engine:
    config = {"max_model_len": 1000, "kv_cache_bytes": 64 << 20, **settings}
    return build_engine(
        model, fingerprint="tiny", config=EngineConfig(**config), native_cache=cache, clock=standing_still
    )


def _prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (length,), generator=generator).tolist() for length in LENGTHS]


def _soft_prompts() -> list[SoftPrompt | None]:
    generator = torch.Generator().manual_seed(2)
    rows = [torch.randn(count, COMMON["hidden_size"], generator=generator) / 4 for count in (5, 16, 40)]
    return [None, *(SoftPrompt(str(len(embeddings)), embeddings) for embeddings in rows)]


def _answers(engine: Engine, *, together: bool) -> list[list[int]]:
    """20 tokens for each prompt with each soft prompt, greedy and sampled in turn, in one batch or one by one."""
    answers = []
    requests = [(prompt, soft_prompt) for soft_prompt in _soft_prompts() for prompt in _prompts()]
    for number, (prompt, soft_prompt) in enumerate(requests):
        params = SamplingParams(max_tokens=20, temperature=float(number % 2), seed=number)
        engine.add_request(number, prompt, params, soft_prompt)
        if not together:
            answers.append(run_to_end(engine)[number])
    if together:
        tokens = run_to_end(engine)
        answers = [tokens[number] for number in range(len(requests))]
    return answers


def _logits(forward: Forward, embed: torch.nn.Module, prompts: list[list[int]], *, chunk: int) -> torch.Tensor:
    """Float32 logits `[prompts, vocab_size]` after each prompt, computed packed, `chunk` tokens of each at a time."""
    blocks = BlockManager(256, BLOCK_SIZE)
    sequences = [
        Sequence.create(number, prompt, SamplingParams(max_tokens=1), cache_seed=b"test")
        for number, prompt in enumerate(prompts)
    ]
    logits = torch.zeros(len(prompts), COMMON["vocab_size"])
    for sequence in sequences:
        blocks.admit(sequence)
        sequence.num_computed_tokens = 0
    while unfinished := [sequence for sequence in sequences if sequence.num_uncomputed_tokens]:
        items = [
            ScheduledSequence(sequence, sequence.num_computed_tokens, min(chunk, sequence.num_uncomputed_tokens))
            for sequence in unfinished
        ]
        ids = [token for item in items for token in item.sequence.token_ids[item.start : item.stop]]
        embeddings = embed(torch.tensor(ids)).to(forward.input_dtype)
        rows = [sum(item.num_tokens for item in items[: i + 1]) - 1 for i in range(len(items))]
        made = forward.logits(Batch(tuple(items), ()), StepInputs(embeddings), rows)
        for item, row in zip(items, made, strict=True):
            item.sequence.num_computed_tokens = item.stop
            logits[item.sequence.request_id] = row
    return logits


def _stock_logits(model: Any) -> torch.Tensor:
    return torch.stack([model(input_ids=torch.tensor([prompt])).logits[0, -1].float() for prompt in _prompts()])


@pytest.mark.parametrize("name", MODELS)
def test_it_is_as_near_to_float32_as_the_stock_model_in_bfloat16(name: str, cache: Path) -> None:
    stock = native_model(name, torch.bfloat16)
    exact = _stock_logits(native_model(name, torch.float32))
    with torch.inference_mode():
        forward = NativeForward(stock, num_blocks=256, max_model_len=1000, is_int8=False, cache=cache)
        stock_error = (_stock_logits(stock) - exact).norm() / exact.norm()
        for chunk in (1000, 24, 1):
            native = _logits(forward, stock.get_input_embeddings(), _prompts(), chunk=chunk)
            assert (native - exact).norm() / exact.norm() < 1.5 * stock_error


def _stock_logprobs(model: Any) -> list[torch.Tensor]:
    return [
        model(input_ids=torch.tensor([prompt])).logits[0, :-1].float().log_softmax(dim=-1)
        for prompt in _prompts()
        if len(prompt) > 1
    ]


def _scored(engine: Engine) -> list[NDArray[np.float32]]:
    """How likely the tokens of each prompt are, but for their first ones, beside the same prompts answered."""
    for number, prompt in enumerate(_prompts()):
        engine.add_request(number, prompt, SamplingParams(max_tokens=number % 2, num_prompt_logprobs=0))
        engine.add_request(1000 + number, prompt, SamplingParams(max_tokens=20))
    told = {}
    while engine.has_work:
        for output in engine.step():
            if output.prompt_logprobs is not None:
                told[output.request_id] = output.prompt_logprobs.logprobs
    return [told[number] for number, prompt in enumerate(_prompts()) if len(prompt) > 1]


@pytest.mark.parametrize("name", MODELS)
def test_prompts_are_as_likely_as_float32_has_it_and_the_stock_model_in_bfloat16(name: str, cache: Path) -> None:
    """Bit by bit the same in chunks of 16, and beside others that find their prompts in the cache."""
    stock = native_model(name, torch.bfloat16)
    with torch.inference_mode():
        exact, rounded = _stock_logprobs(native_model(name, torch.float32)), _stock_logprobs(stock)
    ids = [torch.tensor(prompt[1:])[:, None] for prompt in _prompts() if len(prompt) > 1]
    whole = _scored(_engine(stock, cache))
    for made, truth, near, targets in zip(whole, exact, rounded, ids, strict=True):
        expected, stock_says = (logprobs.gather(1, targets)[:, 0] for logprobs in (truth, near))
        assert (torch.from_numpy(made) - expected).norm() < 1.5 * (stock_says - expected).norm()
    chunked = _scored(_engine(native_model(name, torch.bfloat16), cache, max_num_seqs=16, max_num_batched_tokens=16))
    for one, other in zip(whole, chunked, strict=True):
        np.testing.assert_array_equal(one, other)


def _means(model: Any) -> torch.Tensor:
    states = [model.model(input_ids=torch.tensor([prompt])).last_hidden_state[0] for prompt in _prompts()]
    return torch.stack([rows.double().mean(dim=0) for rows in states])


def _pooled(engine: Engine) -> torch.Tensor:
    for number, prompt in enumerate(_prompts()):
        engine.add_request(number, prompt, None, is_pooled=True)
        engine.add_request(1000 + number, prompt, SamplingParams(max_tokens=20), None)
    means: dict[int, Any] = {}
    while engine.has_work:
        means |= {output.request_id: output.mean_hidden for output in engine.step() if output.mean_hidden is not None}
    return torch.stack([torch.from_numpy(means[number]) for number in range(len(_prompts()))])


@pytest.mark.parametrize("name", MODELS)
def test_mean_hidden_states_are_as_near_to_float32_as_the_stock_models(name: str, cache: Path) -> None:
    stock = native_model(name, torch.bfloat16)
    with torch.inference_mode():
        exact = _means(native_model(name, torch.float32))
        stock_error = (_means(stock) - exact).norm() / exact.norm()
    whole = _pooled(_engine(stock, cache))
    assert (whole - exact).norm() / exact.norm() < 1.5 * stock_error
    chunked = _pooled(_engine(native_model(name, torch.bfloat16), cache, max_num_seqs=16, max_num_batched_tokens=16))
    assert (whole - chunked).norm() / exact.norm() < 1e-7


@pytest.mark.parametrize("name", MODELS)
def test_int8_stays_near(name: str, cache: Path) -> None:
    stock = native_model(name, torch.bfloat16)
    exact = _stock_logits(native_model(name, torch.float32))
    with torch.inference_mode():
        forward = NativeForward(stock, num_blocks=256, max_model_len=1000, is_int8=True, cache=cache)
        int8 = _logits(forward, stock.get_input_embeddings(), _prompts(), chunk=1000)
    assert (int8 - exact).norm() / exact.norm() < 0.3


@pytest.mark.parametrize(
    ("name", "is_int8"), [("llama", False), ("llama", True), ("mistral", False), ("qwen2", False), ("qwen3", False)]
)
def test_every_row_is_the_same_whatever_runs_beside_it(name: str, cache: Path, *, is_int8: bool) -> None:
    """Bit by bit, and so in tokens: alone, in one batch, in chunks, and from the prefix cache."""
    alone = _answers(_engine(native_model(name, torch.bfloat16), cache, is_int8=is_int8), together=False)
    assert len({tuple(answer) for answer in alone}) > 16
    roomy = _engine(native_model(name, torch.bfloat16), cache, is_int8=is_int8)
    assert _answers(roomy, together=True) == alone
    assert _answers(roomy, together=True) == alone
    narrow = _engine(
        native_model(name, torch.bfloat16), cache, is_int8=is_int8, max_num_seqs=16, max_num_batched_tokens=16
    )
    assert _answers(narrow, together=True) == alone


@pytest.mark.parametrize("is_int8", [False, True])
def test_preemption_changes_nothing(cache: Path, *, is_int8: bool) -> None:
    prompts = [[(seed * 31 + i * 7) % 256 for i in range(60)] for seed in range(12)]
    answers = []
    for num_blocks in (1000, 20):
        engine = _engine(
            native_model("llama", torch.bfloat16),
            cache,
            is_int8=is_int8,
            max_model_len=200,
            kv_cache_bytes=num_blocks * BLOCK_BYTES,
        )
        for number, prompt in enumerate(prompts):
            engine.add_request(number, prompt, SamplingParams(max_tokens=60, temperature=1, seed=number))
        answers.append(run_to_end(engine))
    assert engine.stats().num_preemptions > 0
    assert answers[0] == answers[1]


@pytest.mark.parametrize("is_int8", [False, True])
def test_a_poisoned_request_fails_alone_and_leaves_nothing_behind(cache: Path, *, is_int8: bool) -> None:
    healthy = _answers(_engine(native_model("llama", torch.bfloat16), cache, is_int8=is_int8), together=True)
    engine = _engine(native_model("llama", torch.bfloat16), cache, is_int8=is_int8, kv_cache_bytes=70 * BLOCK_BYTES)
    poison = SoftPrompt("poison", torch.full((20, COMMON["hidden_size"]), float("nan")))
    for number in range(3):  # enough to write into every block
        engine.add_request(1000 + number, _prompts()[1], SamplingParams(max_tokens=4), poison)
    failures = []
    while engine.has_work:
        failures += [output.error for output in engine.step() if output.error is not None]
    assert len(failures) == 3
    assert _answers(engine, together=True) == healthy


def test_what_it_cannot_compute_it_refuses_with_the_reason(cache: Path) -> None:
    for model, reason in (
        (tiny_model("gpt2").to(torch.bfloat16), "models of type gpt2"),  # type: ignore[arg-type]
        (native_model("llama", torch.float32), "bfloat16"),
        (LlamaForCausalLM(LlamaConfig(**COMMON, hidden_act="gelu")).to(torch.bfloat16), "gelu"),  # type: ignore[arg-type]
        (LlamaForCausalLM(LlamaConfig(**COMMON, mlp_bias=True)).to(torch.bfloat16), "biases"),  # type: ignore[arg-type]
        (LlamaForCausalLM(LlamaConfig(**{**COMMON, "head_dim": 24})).to(torch.bfloat16), "head size 24"),  # type: ignore[arg-type]
    ):
        with pytest.raises(NativeUnavailable, match=reason):
            decoder_shape(model)
        with pytest.raises(ModelUnsupported, match="--quantization int8"):
            _engine(model, cache, is_int8=True)


def test_without_a_compiler_the_stock_model_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NativeUnavailable):
        load_library(tmp_path)
    engine = _engine(native_model("llama", torch.bfloat16), tmp_path)
    engine.add_request(1, [1, 2, 3], SamplingParams(max_tokens=3, temperature=0))
    assert len(run_to_end(engine)[1]) == 3


def test_a_source_that_does_not_compile_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(NativeUnavailable, match=r"false cannot compile it|the CPU has no"):
        load_library(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_library_compiled_beside_its_source_is_loaded_from_there(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = compile_library(cache)
    source = Path(library.__file__).parent
    for path in (compiled, *(source / name for name in ("decoder.cpp", "deltas.h", "numbers.h"))):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(library, "_SOURCE", tmp_path / "decoder.cpp")
    assert load_library(tmp_path / "cache")._name == str(tmp_path / compiled.name)
    assert not (tmp_path / "cache").exists()
