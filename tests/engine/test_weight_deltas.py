"""Weight deltas beside the proof of what they compute: where tensors are, what cannot be changed, decode graphs."""

import gc
from collections.abc import AsyncIterator

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from adapters.fitting import LinearShape
from adapters.injections import Injection, InputScale, LowRank, OutputScale, WeightDelta
from server.engine.async_engine import AsyncEngine
from server.engine.errors import InjectionUnfit, SequenceFailed
from server.engine.fitting import FittingDeltas
from server.engine.placed_deltas import PlacedDeltas
from server.engine.self_check import tolerance_of
from server.engine.step_inputs import DeltaRows
from server.engine.weight_deltas import WeightDeltas
from tests.engine.accelerating import CallRecorder, accelerator_of
from tests.engine.build import engine_of, greedy, run_to_end
from tests.engine.noting import noting_of
from tests.engine.peft_kinds import adapter_of
from tests.tiny import HIDDEN_SIZE, tiny_model

CPU = torch.device("cpu")
PATH = "model.layers.1.mlp.up_proj"
BYTES_IN_BFLOAT16 = 2 * (4 * HIDDEN_SIZE + 128 * 4)


def _delta(digest: str = "a", path: str = PATH) -> WeightDelta:
    generator = torch.Generator().manual_seed(1)
    down, up = torch.randn(4, HIDDEN_SIZE, generator=generator), torch.randn(128, 4, generator=generator)
    return WeightDelta(digest, {path: LowRank(down, up)})


def _injection(kind: str) -> Injection:
    injection = adapter_of("llama", kind).injection
    assert injection is not None
    return injection


def test_tensors_are_sent_once_and_go_with_their_adapter() -> None:
    placed = PlacedDeltas(CPU, torch.bfloat16)
    delta = _delta()
    change = placed.of(delta).modules[PATH]
    assert isinstance(change, LowRank)
    assert (change.down.dtype, change.down.shape, change.up.shape) == (torch.bfloat16, (4, HIDDEN_SIZE), (128, 4))
    assert placed.of(delta).modules[PATH] is change
    assert placed.num_bytes == BYTES_IN_BFLOAT16
    del delta
    gc.collect()
    assert placed.num_bytes == 0


def test_every_tensor_begins_at_a_multiple_of_16_bytes() -> None:
    odd = LowRank(torch.ones(3, 7), torch.ones(5, 3))
    delta = WeightDelta("a", {"a": odd, "b": OutputScale(torch.ones(3)), "c": odd})
    placed = PlacedDeltas(CPU, torch.bfloat16).of(delta).modules
    tensors = [tensor for change in placed.values() for tensor in change.tensors]
    assert [tensor.storage_offset() * 2 % 16 for tensor in tensors] == [0] * 5
    assert all(tensor.is_contiguous() and bool((tensor == 1).all()) for tensor in tensors)


def test_tensors_that_are_as_the_model_wants_them_are_not_kept_twice() -> None:
    placed, delta = PlacedDeltas(CPU, torch.float32), _delta()
    assert placed.of(delta).modules is delta.modules
    assert placed.num_bytes == 0


def test_the_least_recently_used_tensors_make_room() -> None:
    placed = PlacedDeltas(CPU, torch.bfloat16, budget_bytes=2 * BYTES_IN_BFLOAT16)
    deltas = [_delta(str(number)) for number in range(3)]
    first, second = placed.of(deltas[0]), placed.of(deltas[1])
    assert placed.of(deltas[0]) is first
    placed.of(deltas[2])
    assert placed.num_bytes == 2 * BYTES_IN_BFLOAT16
    assert placed.of(deltas[0]) is first
    assert placed.of(deltas[1]).serial not in (first.serial, second.serial)


def test_every_kind_of_change_keeps_its_shape_and_values() -> None:
    factors = torch.tensor([0.5, 2.0, -1.0])
    delta = WeightDelta("a", {"in": InputScale(factors), "out": OutputScale(factors)})
    placed = PlacedDeltas(CPU, torch.float16).of(delta).modules
    assert isinstance(placed["in"], InputScale)
    assert isinstance(placed["out"], OutputScale)
    assert placed["in"].factors.tolist() == placed["out"].factors.tolist() == factors.tolist()


def test_a_delta_is_looked_at_once_and_not_held() -> None:
    fitting, delta = FittingDeltas({PATH: LinearShape(HIDDEN_SIZE, 128)}), _delta()
    fitting.require_fit(delta)
    fitting.require_fit(delta)
    for _ in range(2):
        with pytest.raises(InjectionUnfit):
            fitting.require_fit(_delta(path="model.norm"))
    assert len(fitting._known) == 1
    del delta
    gc.collect()
    assert not fitting._known


class _Stray(nn.Module):
    """A projection that hands its module some of the rows, or none at all."""

    def __init__(self, inner: nn.Linear, num_rows: int) -> None:
        super().__init__()
        self.inner = inner
        self._num_rows = num_rows

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._num_rows:
            self.inner(x[:, : self._num_rows])
        return torch.nn.functional.linear(x, self.inner.weight)


def _with_stray(num_rows: int) -> PreTrainedModel:
    model = tiny_model("llama")
    mlp = model.get_submodule("model.layers.1.mlp")
    assert isinstance(mlp.up_proj, nn.Linear)
    mlp.up_proj = _Stray(mlp.up_proj, num_rows)
    return model


@pytest.mark.parametrize("num_rows", [0, 2])
def test_a_module_that_computes_other_rows_or_none_fails_the_adapter_alone(num_rows: int) -> None:
    engine = engine_of(_with_stray(num_rows))
    engine.add_request(0, [1, 2, 3], greedy(4))
    expected = run_to_end(engine)[0]
    engine.add_request(0, [1, 2, 3], greedy(4))
    engine.add_request(1, [1, 2, 3], greedy(4), _delta(path=f"{PATH}.inner"))
    errors, answer = {}, []
    while engine.has_work:
        for output in engine.step():
            errors[output.request_id] = output.error
            answer += [output.token_id] if output.request_id == 0 else []
    assert answer == expected
    assert isinstance(errors[1], SequenceFailed)


def test_nothing_stays_on_the_model_after_a_step_even_one_that_fails() -> None:
    model = tiny_model("llama")
    deltas = WeightDeltas(model)
    module = model.get_submodule(PATH)
    rows = (DeltaRows(_delta(), np.arange(2)),)
    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode():
        before = model(ids).logits
        with deltas.over(rows, num_rows=3):
            assert module._forward_hooks
            changed = model(ids).logits
        with pytest.raises(SequenceFailed), deltas.over(rows, num_rows=4):
            model(ids)
        assert not module._forward_hooks
        assert torch.equal(model(ids).logits, before)
    assert not torch.equal(changed[:, 0], before[:, 0])


def test_rows_of_one_adapter_need_not_stand_together() -> None:
    """The same numbers as when each adapter's rows are computed with no others."""
    model = tiny_model("llama")
    deltas, module = WeightDeltas(model), model.get_submodule(PATH)
    adapters = [_delta("a"), WeightDelta("b", {PATH: OutputScale(torch.full((128,), 3.0))})]
    adapters.append(WeightDelta("c", {PATH: InputScale(torch.full((HIDDEN_SIZE,), 3.0))}))
    inputs = torch.randn(1, 8, HIDDEN_SIZE)
    places = [np.array([0, 4]), np.array([1, 2]), np.array([3, 5, 7])]
    with torch.inference_mode():
        plain = module(inputs)
        with deltas.over([DeltaRows(*pair) for pair in zip(adapters, places, strict=True)], num_rows=8):
            mixed = module(inputs)
    low_rank = adapters[0].modules[PATH]
    assert isinstance(low_rank, LowRank)
    expected = plain.clone()
    expected[0, places[0]] += inputs[0, places[0]] @ low_rank.down.T @ low_rank.up.T
    expected[0, places[1]] *= 3
    expected[0, places[2]] *= 3  # the module has no bias
    assert torch.allclose(mixed, expected, atol=1e-4)
    assert torch.equal(mixed[0, 6], plain[0, 6])


@pytest.mark.parametrize("kind", ["lora", "ia3", "prefix tuning"])
def test_beside_recorded_decode_steps(kind: str) -> None:
    """Steps with weight deltas run eagerly, the others are replayed, given KV among them."""
    answers, recorder = [], CallRecorder()
    for accelerator in (None, accelerator_of(recorder)):
        engine = engine_of(tiny_model("llama"), max_num_seqs=8, accelerator=accelerator)
        injection = _injection(kind)
        for number in range(6):
            engine.add_request(number, [number, 3, 9], greedy(4 + 3 * number), injection if number % 2 else None)
        answers.append(run_to_end(engine))
        engine.add_request(9, [4], greedy(8))
        answers[-1] |= run_to_end(engine)
    assert answers[0] == answers[1]
    assert recorder.num_replayed > 5


@pytest.mark.parametrize("kind", ["lora", "rslora", "ia3", "prefix tuning"])
def test_in_bfloat16_logits_are_near_those_of_float32(kind: str) -> None:
    """In standard deviations of the logits, as the start-up self-check has it."""
    adapter = adapter_of("llama", kind)
    engine = engine_of(torch.nn.Module.to(tiny_model("llama"), torch.bfloat16))
    noting, ids = noting_of(engine), list(range(30))
    engine.add_request(0, ids, greedy(1), adapter.injection)
    engine.add_request(1, ids, greedy(1), None)
    run_to_end(engine)
    with torch.inference_mode():
        expected = adapter.model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).logits[0, -1]
    made, base = noting.logits_of[0][0].float(), noting.logits_of[1][0].float()
    assert float((made - expected).std() / expected.std()) < tolerance_of(torch.bfloat16, is_int8=False)
    assert float((base - expected).std() / expected.std()) > 2 * tolerance_of(torch.bfloat16, is_int8=False)


@pytest.fixture
async def async_engine() -> AsyncIterator[AsyncEngine]:
    engine = AsyncEngine(engine_of(tiny_model("llama")))
    engine.start()
    yield engine
    await engine.stop(grace_seconds=0)


async def test_a_weight_delta_has_nothing_to_compute_beforehand(async_engine: AsyncEngine) -> None:
    before = async_engine.stats()
    await async_engine.prefill(_delta(), is_pinned=True)
    assert async_engine.stats() == before
    async_engine.unpin(["a"])
    await async_engine.prefill(_injection("prefix tuning"), is_pinned=True)
    assert async_engine.stats().num_pinned_blocks == 2


async def test_what_does_not_fit_is_refused_before_the_first_token(async_engine: AsyncEngine) -> None:
    unfit = _delta(path="model.layers.1.mlp.down_proj")
    with pytest.raises(InjectionUnfit):
        await async_engine.prefill(unfit)
    with pytest.raises(InjectionUnfit):
        await anext(async_engine.generate([1], greedy(1), injection=unfit))
