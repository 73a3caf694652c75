"""LoRA on a CUDA device: the kernel by itself, in a graph, and in the engine; each test is of one thing."""

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedModel

from adapters.fitting import LinearShape, linear_shapes
from adapters.injections import LowRank, WeightDelta
from server.engine.cuda.accelerator import Accelerator, find_accelerator
from server.engine.cuda.decode import DecodeForward, Replay
from server.engine.cuda.low_rank import LARGEST_RANK, LowRankKernel, LowRankTable, new_scratch
from server.engine.delta_check import check_low_rank_kernel
from server.engine.engine import Engine
from server.engine.self_check import tolerance_of
from tests.engine.build import greedy, run_to_end, runner_of
from tests.engine.noting import noting_of
from tests.engine.test_cuda import _accelerator, _engine, _in_bfloat16, _no_waiting

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")
SHAPES = [(576, 1536), (1536, 576), (4096, 14336), (14336, 4096), (600, 130), (8, 8), (7, 1)]
Factors = Sequence[tuple[torch.Tensor, torch.Tensor]]


def _kernel() -> LowRankKernel:
    kernel = _accelerator().low_rank
    assert kernel is not None, "this device has no Triton"
    return kernel


def _factors(inputs: int, outputs: int, ranks: Sequence[int]) -> Factors:
    torch.manual_seed(0)
    return [
        (
            torch.randn(rank, inputs, device=CUDA, dtype=torch.bfloat16) / inputs**0.5,
            torch.randn(outputs, rank, device=CUDA, dtype=torch.bfloat16) / rank**0.5,
        )
        for rank in ranks
    ]


def _table(factors: Factors) -> LowRankTable:
    addresses = torch.tensor([[down.data_ptr(), up.data_ptr()] for down, up in factors])
    ranks = torch.tensor([len(down) for down, _ in factors], dtype=torch.int32)
    return LowRankTable(addresses.to(CUDA), ranks.to(CUDA))


def _added(factors: Factors, inputs: torch.Tensor, outputs: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    made = outputs.clone()
    _kernel()(inputs, made, slots, _table(factors), new_scratch(len(slots), CUDA).fill_(torch.nan))
    return made


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_the_kernel_adds_what_it_should(inputs: int, outputs: int, dtype: torch.dtype) -> None:
    check_low_rank_kernel(_kernel(), [LinearShape(inputs, outputs)], dtype=dtype, device=CUDA)


@pytest.mark.parametrize(("inputs", "outputs"), [(4096, 1024), (576, 192)])
def test_a_row_is_the_same_bit_by_bit_in_any_company(inputs: int, outputs: int) -> None:
    factors = _factors(inputs, outputs, (8, 8, 1, 64, 33, 16))
    rows = torch.randn(64, inputs, device=CUDA, dtype=torch.bfloat16)
    before = torch.randn(64, outputs, device=CUDA, dtype=torch.bfloat16)
    slots = (torch.arange(64, device=CUDA, dtype=torch.int32) * 5) % 7 - 1
    together = _added(factors, rows, before, slots)
    order = torch.randperm(64, device=CUDA)
    assert torch.equal(_added(factors, rows[order], before[order], slots[order]), together[order])
    for row in range(0, 64, 9):
        at = slice(row, row + 1)
        assert torch.equal(_added(factors, rows[at], before[at], slots[at]), together[at])
    assert torch.equal(together[slots < 0], before[slots < 0])


def test_what_is_not_a_number_stays_in_its_rows() -> None:
    factors = [*_factors(512, 512, (8, 64))]
    factors.append((torch.full_like(factors[0][0], torch.nan), torch.ones_like(factors[0][1])))
    rows, before = torch.randn(2, 9, 512, device=CUDA, dtype=torch.bfloat16)
    slots = torch.arange(9, device=CUDA, dtype=torch.int32) % 3
    made = _added(factors, rows, before, slots)
    assert made.isnan().any(dim=1).tolist() == [slot == 2 for slot in slots.tolist()]


def test_a_graph_reads_tables_slots_and_factors_anew() -> None:
    factors = _factors(512, 768, (8, 24))
    table, scratch = _table(factors), new_scratch(4, CUDA)
    rows, before = torch.randn(4, 512, device=CUDA).bfloat16(), torch.randn(4, 768, device=CUDA).bfloat16()
    slots, made = torch.tensor([0, -1, 1, 0], device=CUDA, dtype=torch.int32), before.clone()
    kernel = _kernel()

    def run() -> None:
        made.copy_(before)
        kernel(rows, made, slots, table, scratch)

    replay = _accelerator().record(run)
    replay()
    assert torch.equal(made, _added(factors, rows, before, slots))
    slots.copy_(torch.tensor([1, 1, -1, 0]))
    replay()
    assert torch.equal(made, _added(factors, rows, before, slots))
    others = _factors(512, 768, (3, 64))[::-1]
    table.addresses.copy_(_table(others).addresses)
    table.ranks.copy_(_table(others).ranks)
    replay()
    assert torch.equal(made, _added(others, rows, before, slots))


def _lora(model: PreTrainedModel, seed: int, rank: int, *, keep: Callable[[str], bool] = bool) -> WeightDelta:
    generator = torch.Generator().manual_seed(seed)
    return WeightDelta(
        f"lora-{seed}-{rank}",
        {
            path: LowRank(
                torch.randn(rank, shape.num_inputs, generator=generator) / shape.num_inputs**0.5,
                torch.randn(shape.num_outputs, rank, generator=generator) / (2 * rank**0.5),
            )
            for path, shape in linear_shapes(model).items()
            if keep(path)
        },
    )


def _adapters(model: PreTrainedModel) -> list[WeightDelta | None]:
    return [
        None,
        _lora(model, 1, 8),
        _lora(model, 2, 1, keep=lambda path: path.endswith(("q_proj", "v_proj"))),
        _lora(model, 3, LARGEST_RANK, keep=lambda path: "layers.1." in path),
        _lora(model, 4, 17, keep=lambda path: "mlp" in path),
    ]


@contextmanager
def _nothing_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.WARNING):
        yield
    assert "not recorded" not in caplog.text, caplog.text


class _Counting:
    """A recorder that counts replays."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._record = accelerator.record
        self.num_replayed = 0

    def __call__(self, run: Callable[[], None]) -> Replay:
        replay = self._record(run)

        def counted() -> None:
            self.num_replayed += 1
            replay()

        return counted


def _mixed(engine: Engine, adapters: Sequence[WeightDelta | None], *, tokens: int = 12) -> dict[int, list[int]]:
    for number in range(20):
        prompt = [(number * 31 + i * 7) % 256 for i in range(1 + 13 * number)]
        engine.add_request(number, prompt, greedy(tokens), adapters[number % len(adapters)])
    return run_to_end(engine)


@pytest.mark.parametrize("name", ["llama", "qwen2", "mistral"])
def test_the_engine_records_lora_and_answers_near_eager_steps(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Logits of each token, in standard deviations, while both say the same tokens; a log line says what is refused."""
    accelerator = _accelerator()
    counting = _Counting(accelerator)
    with _nothing_logged(caplog):
        recorded = _engine(_in_bfloat16(name), replace(accelerator, record=counting))
    eager = _engine(_in_bfloat16(name), replace(accelerator, low_rank=None))
    forward = runner_of(recorded)._forward
    assert isinstance(forward, DecodeForward)
    assert forward._deltas is not None
    assert len(forward._deltas.paths) == 3 * 7
    adapters = _adapters(_in_bfloat16(name))
    notes, limit = [noting_of(engine) for engine in (recorded, eager)], 2 * tolerance_of(torch.bfloat16, is_int8=False)
    before = counting.num_replayed
    answers = [_mixed(engine, adapters) for engine in (recorded, eager)]
    assert counting.num_replayed - before >= 8
    num_compared = 0
    for number in range(20):
        logits, tokens = [note.logits_of[number] for note in notes], [answer[number] for answer in answers]
        for step, (made, wanted, *said) in enumerate(zip(*logits, *tokens, strict=False)):
            difference = float((made - wanted).float().std() / wanted.float().std())
            assert difference < limit, f"request {number}, adapter {number % 5}, token {step}"
            num_compared += 1
            if said[0] != said[1]:
                break
    assert num_compared > 60


def test_graphs_with_lora_answer_as_the_same_calls_do(caplog: pytest.LogCaptureFixture) -> None:
    """The same kernels launched by Python: equal bit by bit; adapters beyond the slots take turns."""
    accelerator = _accelerator()
    settings = {"max_num_seqs": 8}
    with _nothing_logged(caplog):
        graphs = _engine(_in_bfloat16("llama"), accelerator, **settings)
        calls = _engine(_in_bfloat16("llama"), replace(accelerator, record=lambda run: run), **settings)
    adapters = [_lora(_in_bfloat16("llama"), seed, 1 + seed % 16) for seed in range(12)]
    for order in (adapters, adapters[::-1]):
        assert _mixed(graphs, order) == _mixed(calls, order)


def test_a_step_with_lora_waits_for_nothing_before_its_logits() -> None:
    engine = _engine(_in_bfloat16("llama"), _accelerator())
    adapters = _adapters(_in_bfloat16("llama"))
    _mixed(engine, adapters)
    for number, adapter in enumerate(adapters):
        engine.add_request(number, [1, 2, 3 + number], greedy(9), adapter)
    engine.step()
    for _ in range(3):
        batch = engine._scheduler.schedule()
        with torch.inference_mode(), _no_waiting():
            runner_of(engine).logits(batch, engine._injections)
        engine._scheduler.postprocess(batch, runner_of(engine).run(batch, engine._injections, {}))


def test_an_adapter_that_goes_frees_its_memory_and_the_next_is_right() -> None:
    """Its factors' memory is used again by others, while the tables still have its address."""
    accelerator = _accelerator()
    engine = _engine(_in_bfloat16("llama"), accelerator)
    other = _engine(_in_bfloat16("llama"), replace(accelerator, record=lambda run: run))
    taken = []
    for seed in range(6):
        lora = _lora(_in_bfloat16("llama"), seed, LARGEST_RANK)
        assert _mixed(engine, [lora, None]) == _mixed(other, [lora, None])
        del lora
        gc.collect()
        torch.cuda.synchronize()
        taken.append(torch.cuda.memory_allocated())
    assert max(taken[2:]) - taken[1] < 1 << 20


def test_a_wrong_kernel_is_found_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    def wrong(
        inputs: torch.Tensor, outputs: torch.Tensor, slots: torch.Tensor, table: LowRankTable, scratch: torch.Tensor
    ) -> None:
        _kernel()(inputs, outputs, slots.roll(1), table, scratch)

    with caplog.at_level(logging.WARNING):
        engine = _engine(_in_bfloat16("llama"), replace(_accelerator(), low_rank=wrong))
    assert "steps with LoRA are not recorded: the kernel for low-rank changes" in caplog.text
    assert len(_mixed(engine, _adapters(_in_bfloat16("llama")))) == 20


def test_the_accelerator_has_the_kernel() -> None:
    accelerator = find_accelerator(CUDA, torch.bfloat16)
    assert accelerator is not None
    assert accelerator.low_rank is not None
