"""LoRA in recorded decode steps, on the CPU: slots, tables and hooks, by a recorder as strict as a CUDA graph."""

import gc
import logging
import weakref
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn

from adapters.fitting import LinearShape, linear_shapes
from adapters.injections import Injection, LowRank, OutputScale, WeightDelta
from server.engine.cuda.decode import DecodeForward
from server.engine.cuda.low_rank import LARGEST_RANK, LowRankKernel, LowRankTable
from server.engine.delta_check import check_low_rank_kernel
from server.engine.engine import Engine
from server.engine.errors import ModelUnsupported
from tests.engine.accelerating import CallRecorder, accelerator_of, low_rank
from tests.engine.build import engine_of, greedy, run_to_end, runner_of
from tests.engine.peft_kinds import every_kind
from tests.tiny import Family, tiny_model

BUCKETS_OF_8 = 4


def _lora(seed: int, *, rank: int = 4, family: Family = "llama", keep: Callable[[int], bool] = bool) -> WeightDelta:
    generator = torch.Generator().manual_seed(seed)
    changes = {
        path: LowRank(
            torch.randn(rank, shape.num_inputs, generator=generator) / 8,
            torch.randn(shape.num_outputs, rank, generator=generator) / 8,
        )
        for number, (path, shape) in enumerate(linear_shapes(tiny_model(family)).items())
        if keep(number + 1)
    }
    return WeightDelta(f"lora-{seed}-{rank}", changes)


def _engine(recorder: CallRecorder, kernel: LowRankKernel | None = low_rank, family: Family = "llama") -> Engine:
    accelerator = accelerator_of(recorder, low_rank_kernel=kernel)
    return engine_of(tiny_model(family), max_num_seqs=8, accelerator=accelerator)


def _answers(
    engine: Engine, injections: Sequence[Injection | None], *, first: int = 0, most: int = 20
) -> dict[int, list[int]]:
    """Requests that end one after the other, so that steps have other rows all the time."""
    for number, injection in enumerate(injections):
        engine.add_request(first + number, [number, 3, 9], greedy(min(most, 3 + 2 * number)), injection)
    return run_to_end(engine)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_recorded_steps_with_lora_answer_as_the_eager_engine_does(family: Family) -> None:
    recorder = CallRecorder()
    engine = _engine(recorder, family=family)
    assert recorder.num_recorded == 2 * BUCKETS_OF_8
    keeps = [lambda number: number % 3 == 0, bool, lambda number: number < 4]
    loras = [_lora(seed, rank=rank, family=family, keep=keeps[seed]) for seed, rank in enumerate((1, 8, LARGEST_RANK))]
    mixed = [loras[0], None, loras[1], loras[0], loras[2], None, loras[1], loras[2]]
    before = recorder.num_replayed
    made = _answers(engine, mixed)
    assert recorder.num_replayed - before >= 16
    assert made == _answers(engine_of(tiny_model(family)), mixed)
    assert len({tuple(tokens[:3]) for tokens in made.values()}) > 4


def test_more_adapters_than_slots_take_turns_and_all_answer() -> None:
    """10 adapters, 8 slots, in two orders; each request has its own adapter's answer each time."""
    engine, eager = _engine(CallRecorder()), engine_of(tiny_model("llama"))
    loras = [_lora(seed, keep=lambda number: number < 5) for seed in range(10)]
    for turn, order in enumerate((loras, loras[5:] + loras[:5])):
        made = _answers(engine, order, first=100 * turn, most=4)
        assert made == _answers(eager, order, first=100 * turn, most=4)


def test_what_is_not_low_rank_or_of_a_high_rank_runs_eagerly() -> None:
    recorder = CallRecorder()
    engine = _engine(recorder)
    others = [
        _lora(1, rank=LARGEST_RANK + 1),
        WeightDelta("scale", {"model.layers.1.mlp.up_proj": OutputScale(torch.full((128,), 2.0))}),
        *(adapter.injection for adapter in every_kind("llama")),
    ]
    mixed = [*others, _lora(2), None]
    assert _answers(engine, mixed) == _answers(engine_of(tiny_model("llama")), mixed)
    before = recorder.num_replayed
    _answers(engine, others[:1], first=50)
    assert recorder.num_replayed == before
    _answers(engine, [_lora(2)], first=60)
    assert recorder.num_replayed > before


def test_an_adapter_that_goes_leaves_nothing_and_its_memory_is_never_read_again() -> None:
    engine, eager = _engine(CallRecorder()), engine_of(tiny_model("llama"))
    for seed in range(4):
        lora = _lora(seed, rank=1 + seed % 7, keep=lambda number: number < 5)
        gone = weakref.ref(lora)
        assert _answers(engine, [lora, None], most=3) == _answers(eager, [lora, None], most=3)
        del lora
        gc.collect()
        assert gone() is None


class _Twice(nn.Module):
    """Calls its module twice, as a family with shared layers does."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        once: torch.Tensor = self.inner(x)
        twice: torch.Tensor = self.inner(x)
        return (once + twice) / 2


def test_a_module_that_is_not_called_once_is_left_out_and_the_others_are_recorded() -> None:
    model = tiny_model("llama")
    mlp = model.get_submodule("model.layers.1.mlp")
    assert isinstance(mlp.up_proj, nn.Linear)
    mlp.up_proj = _Twice(mlp.up_proj)
    recorder = CallRecorder()
    engine = engine_of(model, max_num_seqs=8, accelerator=accelerator_of(recorder, low_rank_kernel=low_rank))
    forward = runner_of(engine)._forward
    assert isinstance(forward, DecodeForward)
    assert forward._deltas is not None
    assert "model.layers.1.mlp.up_proj.inner" not in forward._deltas.paths
    assert len(forward._deltas.paths) == 3 * 7 - 1
    others = _lora(3, keep=lambda number: number != 13)
    assert "model.layers.1.mlp.up_proj" not in others.modules
    before = recorder.num_replayed
    assert _answers(engine, [others, None]) == _answers(engine_of(tiny_model("llama")), [others, None])
    assert recorder.num_replayed > before


def _nothing(
    inputs: torch.Tensor, outputs: torch.Tensor, slots: torch.Tensor, table: LowRankTable, scratch: torch.Tensor
) -> None:
    del inputs, outputs, slots, table, scratch


def _of_the_next_row(
    inputs: torch.Tensor, outputs: torch.Tensor, slots: torch.Tensor, table: LowRankTable, scratch: torch.Tensor
) -> None:
    low_rank(inputs, outputs, slots.roll(1), table, scratch)


def _without_the_last_input(
    inputs: torch.Tensor, outputs: torch.Tensor, slots: torch.Tensor, table: LowRankTable, scratch: torch.Tensor
) -> None:
    shorter = inputs.clone()
    shorter[:, -1] = 0
    low_rank(shorter, outputs, slots, table, scratch)


def _too_strong(
    inputs: torch.Tensor, outputs: torch.Tensor, slots: torch.Tensor, table: LowRankTable, scratch: torch.Tensor
) -> None:
    low_rank(inputs * 1.01, outputs, slots, table, scratch)


def _raising(
    inputs: torch.Tensor, outputs: torch.Tensor, slots: torch.Tensor, table: LowRankTable, scratch: torch.Tensor
) -> None:
    del inputs, outputs, slots, table, scratch
    raise RuntimeError("no compiler for this device")


WRONG: list[LowRankKernel] = [_nothing, _of_the_next_row, _without_the_last_input, _too_strong, _raising]


@pytest.mark.parametrize("wrong", WRONG, ids=["nothing", "another row's", "too little", "too much", "raises"])
def test_a_wrong_kernel_is_found_at_the_start_and_lora_runs_eagerly(
    wrong: LowRankKernel, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = CallRecorder()
    with caplog.at_level(logging.WARNING):
        engine = _engine(recorder, wrong)
    assert "steps with LoRA are not recorded: " in caplog.text
    assert recorder.num_recorded == BUCKETS_OF_8
    mixed = [_lora(1), None, _lora(2)]
    assert _answers(engine, mixed) == _answers(engine_of(tiny_model("llama")), mixed)
    assert recorder.num_replayed > 0  # without LoRA as before


@pytest.mark.parametrize("wrong", ["slots", pytest.param("ranks", marks=pytest.mark.slow)])
def test_wrong_tables_are_found_at_the_start(wrong: str, caplog: pytest.LogCaptureFixture) -> None:
    """A kernel that is right by itself, and sees in recorded steps what belongs to others."""
    num_checked = len(set(linear_shapes(tiny_model("llama")).values()))
    calls = 0

    def kernel(
        inputs: torch.Tensor, outputs: torch.Tensor, slots: torch.Tensor, table: LowRankTable, scratch: torch.Tensor
    ) -> None:
        nonlocal calls
        calls += 1
        if calls > num_checked:
            slots = slots.roll(1) if wrong == "slots" else slots
            table = LowRankTable(table.addresses, table.ranks.clamp(max=2)) if wrong == "ranks" else table
        low_rank(inputs, outputs, slots, table, scratch)

    with caplog.at_level(logging.WARNING):
        engine = _engine(CallRecorder(), kernel)
    assert "logits of recorded steps with LoRA differ" in caplog.text
    mixed = [_lora(1), None, _lora(2)]
    assert _answers(engine, mixed) == _answers(engine_of(tiny_model("llama")), mixed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_check_of_a_kernel_takes_the_right_one(dtype: torch.dtype) -> None:
    shapes = {LinearShape(64, 32), LinearShape(600, 130), LinearShape(7, 1)}
    check_low_rank_kernel(low_rank, shapes, dtype=dtype, device=torch.device("cpu"))
    with pytest.raises(ModelUnsupported, match="of 64 inputs and 32 outputs"):
        check_low_rank_kernel(_nothing, {LinearShape(64, 32)}, dtype=dtype, device=torch.device("cpu"))
