"""Weight deltas and given KV in the native decoder: against PEFT and stock models, and bit by bit against itself."""

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, TaskType, get_peft_model
from transformers import DynamicCache, PreTrainedModel

from adapters.injections import Injection, InputScale, KVRows, LowRank, ModuleDelta, OutputScale, WeightDelta
from server.engine.batch import Batch, ScheduledSequence
from server.engine.block_manager import BlockManager
from server.engine.config import EngineConfig
from server.engine.engine import Engine
from server.engine.errors import InjectionUnfit
from server.engine.loader import build_engine
from server.engine.model_runner import ModelRunner
from server.engine.native.forward import BLOCK_SIZE, NativeForward
from server.engine.sampling_params import SamplingParams
from server.engine.self_check import tolerance_of
from server.engine.sequence import Sequence as EngineSequence
from tests.engine.build import run_to_end, standing_still
from tests.engine.native_models import COMMON, native_model
from tests.native import require_native

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]
LORA = LoraConfig(task_type=TaskType.CAUSAL_LM, r=12, lora_alpha=6, target_modules=LINEAR)
IA3 = IA3Config(
    task_type=TaskType.CAUSAL_LM, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"],
    feedforward_modules=["o_proj", "down_proj"],
)  # fmt: skip
IA3_INPUTS = IA3Config(
    task_type=TaskType.CAUSAL_LM, target_modules=["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"],
    feedforward_modules=["q_proj", "k_proj", "gate_proj", "up_proj"],
)  # fmt: skip
_NUM_BLOCKS = 512
LENGTHS = (1, 300, 15, 17, 70)
Request = tuple[list[int], Injection | None]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the compiled library in it."""
    return require_native(tmp_path_factory.mktemp("native"))


def _forward(model: PreTrainedModel, cache: Path, *, is_int8: bool = False) -> NativeForward:
    return NativeForward(model, num_blocks=_NUM_BLOCKS, max_model_len=1000, is_int8=is_int8, cache=cache)


def _runner(cache: Path, *, name: str = "llama", is_int8: bool = False) -> ModelRunner:
    model = native_model(name, torch.bfloat16)
    return ModelRunner(model.get_input_embeddings(), _forward(model, cache, is_int8=is_int8))


def _prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (length,), generator=generator).tolist() for length in LENGTHS]


@torch.inference_mode()
def _logits(runner: ModelRunner, requests: Sequence[Request], *, chunk: int = 1000) -> torch.Tensor:
    """Float32 logits `[requests, vocab_size]` after each prompt, computed packed, `chunk` tokens of each at a time."""
    blocks = BlockManager(_NUM_BLOCKS, BLOCK_SIZE)
    injections = {number: injection for number, (_, injection) in enumerate(requests) if injection}
    sequences = [
        EngineSequence.create(
            number,
            prompt,
            SamplingParams(max_tokens=1),
            cache_seed=str(number).encode(),
            num_virtual_tokens=injection.num_virtual_tokens if injection else 0,
        )
        for number, (prompt, injection) in enumerate(requests)
    ]
    logits = torch.zeros(len(requests), COMMON["vocab_size"])
    for sequence in sequences:
        assert blocks.admit(sequence) is not None
        sequence.num_computed_tokens = 0
    while unfinished := [sequence for sequence in sequences if sequence.num_uncomputed_tokens]:
        items = [
            ScheduledSequence(
                sequence,
                sequence.num_computed_tokens,
                min(chunk + sequence.num_virtual_tokens, sequence.num_uncomputed_tokens),
            )
            for sequence in unfinished
        ]
        made = runner.logits(Batch(tuple(items), ()), injections)
        for item in items:
            item.sequence.num_computed_tokens = item.stop
        for item, row in zip([item for item in items if item.samples], made, strict=True):
            logits[item.sequence.request_id] = row
    return logits


def _peft_model(config: LoraConfig | IA3Config, dtype: torch.dtype, name: str) -> Any:
    """The same model and the same random adapter in every number type, the adapter itself always in float32."""
    torch.manual_seed(3)
    peft_model = get_peft_model(native_model(name, dtype), config, autocast_adapter_dtype=True)
    for key, parameter in peft_model.named_parameters():
        if parameter.requires_grad:
            mean = 1.0 if "ia3" in key else 0.0
            parameter.data = mean + torch.randn(parameter.shape) * (0.3 if "ia3" in key else 0.2)
    return peft_model


def _delta_of(peft_model: Any) -> WeightDelta:
    changes: dict[str, ModuleDelta] = {}
    for path, module in peft_model.base_model.model.named_modules():
        if hasattr(module, "lora_A"):
            up = module.lora_B["default"].weight.data * module.scaling["default"]
            changes[path] = LowRank(module.lora_A["default"].weight.data, up)
        elif hasattr(module, "ia3_l"):
            factors = module.ia3_l["default"].data.flatten()
            changes[path] = InputScale(factors) if module.is_feedforward else OutputScale(factors)
    return WeightDelta("peft", changes)


def _stock_logits(model: Any) -> torch.Tensor:
    return torch.stack([model(input_ids=torch.tensor([prompt])).logits[0, -1].float() for prompt in _prompts()])


@pytest.mark.parametrize("config", [LORA, IA3, IA3_INPUTS], ids=["lora", "ia3", "ia3 inputs"])
@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3"])
def test_it_is_as_near_to_float32_as_peft_in_bfloat16(name: str, config: LoraConfig | IA3Config, cache: Path) -> None:
    peft_model = _peft_model(config, torch.float32, name)
    with torch.inference_mode():
        exact = _stock_logits(peft_model)
        peft_error = (_stock_logits(_peft_model(config, torch.bfloat16, name)) - exact).norm() / exact.norm()
        base = _stock_logits(native_model(name, torch.float32))
    requests = [(prompt, _delta_of(peft_model)) for prompt in _prompts()]
    native = _logits(_runner(cache, name=name), requests)
    assert (native - exact).norm() / exact.norm() < 1.5 * peft_error
    assert ((native - exact).std(dim=1) / exact.std(dim=1)).max() < tolerance_of(torch.bfloat16, is_int8=False)
    assert (exact - base).norm() / exact.norm() > 10 * peft_error


@pytest.mark.parametrize("config", [LORA, IA3, IA3_INPUTS], ids=["lora", "ia3", "ia3 inputs"])
def test_int8_stays_near(config: LoraConfig | IA3Config, cache: Path) -> None:
    peft_model = _peft_model(config, torch.float32, "llama")
    with torch.inference_mode():
        exact = _stock_logits(peft_model)
    native = _logits(_runner(cache, is_int8=True), [(prompt, _delta_of(peft_model)) for prompt in _prompts()])
    assert ((native - exact).std(dim=1) / exact.std(dim=1)).max() < tolerance_of(torch.bfloat16, is_int8=True)


def _module_sizes() -> dict[str, tuple[int, int]]:
    """Inputs and outputs of every linear module, by path."""
    model = native_model("llama", torch.bfloat16)
    linear = [(path, module) for path, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    return {path: (module.in_features, module.out_features) for path, module in linear}


def _lora(seed: int, rank: int, *, keep: Callable[[str], bool] = lambda _: True) -> WeightDelta:
    generator = torch.Generator().manual_seed(seed)
    changes: dict[str, ModuleDelta] = {
        path: LowRank(
            torch.randn(rank, inputs, generator=generator) / 8,
            torch.randn(outputs, rank, generator=generator) / 8,
        )
        for path, (inputs, outputs) in _module_sizes().items()
        if keep(path)
    }
    return WeightDelta(f"lora-{seed}", changes)


def _mixed(seed: int) -> WeightDelta:
    """All kinds of change in one adapter, on some modules."""
    generator = torch.Generator().manual_seed(seed)
    changes: dict[str, ModuleDelta] = {}
    for path, (inputs, outputs) in _module_sizes().items():
        if path.endswith(("o_proj", "lm_head")):
            changes[path] = InputScale(1 + torch.randn(inputs, generator=generator) / 4)
        elif path.endswith(("k_proj", "gate_proj")):
            changes[path] = OutputScale(1 + torch.randn(outputs, generator=generator) / 4)
        elif path.endswith("up_proj"):
            changes[path] = LowRank(
                torch.randn(3, inputs, generator=generator) / 8, torch.randn(outputs, 3, generator=generator) / 8
            )
    return WeightDelta(f"mixed-{seed}", changes)


def _own_inputs(seed: int, *, keep: Callable[[str], bool] = lambda _: True) -> WeightDelta:
    """Factors for inputs that modules share with others."""
    generator = torch.Generator().manual_seed(seed)
    shared = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
    changes: dict[str, ModuleDelta] = {
        path: InputScale(1 + torch.randn(inputs, generator=generator) / 4)
        for path, (inputs, _) in _module_sizes().items()
        if path.endswith(shared) and keep(path)
    }
    return WeightDelta(f"own-{seed}", changes)


def _kv_rows(seed: int, count: int) -> KVRows:
    generator = torch.Generator().manual_seed(seed)
    keys, values = (torch.randn(3, count, 2, 16, generator=generator) for _ in range(2))
    return KVRows(f"kv-{seed}", keys, values)


def _injections() -> list[Injection | None]:
    return [
        None,
        _lora(1, 1),
        _lora(2, 8),
        _lora(3, 13, keep=lambda path: path.endswith(("v_proj", "down_proj"))),
        _lora(4, 64, keep=lambda path: "layers.1." in path),
        _lora(5, 256, keep=lambda path: path == "lm_head"),
        _mixed(6),
        _mixed(7),
        _own_inputs(10),
        _own_inputs(11, keep=lambda path: path.endswith(("k_proj", "up_proj")) and "layers.2." not in path),
        _kv_rows(8, 5),
        _kv_rows(9, 37),
    ]


@pytest.mark.parametrize("is_int8", [False, True])
def test_every_row_is_the_same_whatever_adapter_runs_beside_it(cache: Path, *, is_int8: bool) -> None:
    """Bit by bit: alone, in one batch, in another order, in chunks, token by token."""
    runner = _runner(cache, is_int8=is_int8)
    requests = [(prompt, injection) for prompt in _prompts() for injection in _injections()]
    alone = torch.cat([_logits(runner, [request]) for request in requests])
    assert torch.unique(alone, dim=0).shape[0] == len(requests)
    assert alone.isfinite().all()
    for chunk in (1000, 24):
        assert torch.equal(_logits(runner, requests, chunk=chunk), alone)
    assert torch.equal(_logits(runner, requests[::-1]).flip(0), alone)
    few = [number for number, (prompt, _) in enumerate(requests) if len(prompt) < 20]
    assert torch.equal(_logits(runner, [requests[number] for number in few], chunk=1), alone[few])


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_given_kv_answers_as_the_stock_model_with_the_same_cache(name: str, cache: Path) -> None:
    exact_model: Any = native_model(name, torch.float32)
    for count in (5, 16, 37):
        rows = _kv_rows(count, count)
        with torch.inference_mode():
            exact = torch.stack(
                [
                    exact_model(input_ids=torch.tensor([prompt]), past_key_values=_stock_cache(rows)).logits[0, -1]
                    for prompt in _prompts()
                ]
            )
        native = _logits(_runner(cache, name=name), [(prompt, rows) for prompt in _prompts()])
        assert ((native - exact).std(dim=1) / exact.std(dim=1)).max() < tolerance_of(torch.bfloat16, is_int8=False)


def _stock_cache(rows: KVRows) -> DynamicCache:
    """`[1, num_kv_heads, num_virtual_tokens, head_dim]` for each layer."""
    stock = DynamicCache()
    for layer, (keys, values) in enumerate(zip(rows.keys, rows.values, strict=True)):
        stock.update(keys.transpose(0, 1)[None], values.transpose(0, 1)[None], layer)
    return stock


def _engine(cache: Path, *, is_int8: bool, num_blocks: int = 2000) -> Engine:
    return build_engine(
        native_model("llama", torch.bfloat16),
        fingerprint="tiny",
        config=EngineConfig(max_model_len=400, kv_cache_bytes=num_blocks * 2 * 3 * 2 * 16 * 16 * 2, is_int8=is_int8),
        native_cache=cache,
        clock=standing_still,
    )


def _answers(engine: Engine) -> dict[int, list[int]]:
    requests = [(prompt, injection) for injection in _injections() for prompt in _prompts()[:4]]
    for number, (prompt, injection) in enumerate(requests):
        params = SamplingParams(max_tokens=12, temperature=float(number % 2), seed=number)
        engine.add_request(number, prompt, params, injection)
    return run_to_end(engine)


@pytest.mark.parametrize("is_int8", [False, True])
def test_a_poisoned_adapter_fails_alone_and_leaves_nothing_behind(cache: Path, *, is_int8: bool) -> None:
    healthy = _answers(_engine(cache, is_int8=is_int8))
    engine = _engine(cache, is_int8=is_int8, num_blocks=80)
    broken = LowRank(torch.full((8, 96), float("nan")), torch.ones(32, 8))
    poisons: list[Injection] = [
        WeightDelta("poison", {"model.layers.1.self_attn.v_proj": broken}),
        KVRows("poisoned rows", *(torch.full((3, 20, 2, 16), float("nan")) for _ in range(2))),
    ]
    for number in range(6):  # enough to write into every block
        engine.add_request(1000 + number, _prompts()[1], SamplingParams(max_tokens=4), poisons[number % 2])
    failures = []
    while engine.has_work:
        failures += [output.error for output in engine.step() if output.error is not None]
    assert len(failures) == 6
    assert _answers(engine) == healthy


def test_a_packed_delta_goes_when_nobody_holds_the_delta(cache: Path) -> None:
    forward = _forward(native_model("llama", torch.bfloat16), cache)
    runner = ModelRunner(native_model("llama", torch.bfloat16).get_input_embeddings(), forward)
    deltas = [_lora(1, 8), _mixed(2)]
    for _ in range(2):
        _logits(runner, [([1, 2, 3], delta) for delta in deltas])
        assert forward.num_packed_deltas == 2
    deltas.pop()
    gc.collect()
    assert forward.num_packed_deltas == 1
    deltas.clear()
    gc.collect()
    assert forward.num_packed_deltas == 0


def test_what_does_not_fit_is_refused(cache: Path) -> None:
    forward = _forward(native_model("llama", torch.bfloat16), cache)
    query, down = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"
    for injection in (
        WeightDelta("path", {"model.layers.9.self_attn.q_proj": OutputScale(torch.ones(96))}),
        WeightDelta("embedding", {"model.embed_tokens": OutputScale(torch.ones(96))}),
        WeightDelta("inputs", {query: LowRank(torch.ones(8, 95), torch.ones(96, 8))}),
        WeightDelta("outputs", {query: LowRank(torch.ones(8, 96), torch.ones(95, 8))}),
        WeightDelta("ranks", {query: LowRank(torch.ones(8, 96), torch.ones(96, 7))}),
        WeightDelta("factors", {down: InputScale(torch.ones(96))}),
        KVRows("layers", torch.zeros(2, 4, 2, 16), torch.zeros(2, 4, 2, 16)),
        KVRows("heads", torch.zeros(3, 4, 6, 16), torch.zeros(3, 4, 6, 16)),
    ):
        with pytest.raises(InjectionUnfit):
            forward.require_fit(injection)
    for fitting in _injections():
        if fitting is not None:
            forward.require_fit(fitting)
