"""Every kind of adapter and the base in one batch, against PEFT's own models one by one: tokens and logits."""

import random
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adapters.injections import Injection, KVRows, LowRank, WeightDelta
from server.engine.engine import Engine
from server.engine.errors import InjectionUnfit, PromptInvalid, SequenceFailed
from tests.engine.build import engine_of, greedy, run_to_end
from tests.engine.noting import Noting, noting_of
from tests.engine.peft_kinds import PeftAdapter, adapter_of, every_kind
from tests.tiny import Family, tiny_model

FAMILIES: tuple[Family, ...] = ("llama", "qwen2", "gpt2", "bloom")
NUM_ROWS = 16
LARGEST_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Request:
    adapter: PeftAdapter
    prompt_ids: list[int]
    max_tokens: int


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    name: Family = request.param
    return name


@pytest.fixture(scope="module")
def adapters(family: Family) -> list[PeftAdapter]:
    return every_kind(family)


def _batch(adapters: list[PeftAdapter], rng: random.Random, *, longest: int = 60) -> list[Request]:
    """Each adapter about once; prompts begin alike now and then, so that the prefix cache has something to find."""
    chosen = rng.sample([*adapters, *adapters], NUM_ROWS)
    requests = []
    for adapter in chosen:
        beginning = [rng.randrange(3) * 50] * (16 * rng.randrange(2))
        rest = [rng.randrange(256) for _ in range(rng.randint(1, longest))]
        requests.append(Request(adapter, beginning + rest, rng.randint(1, 10)))
    return requests


def _answers(engine: Engine, requests: list[Request]) -> list[list[int]]:
    for number, request in enumerate(requests):
        engine.add_request(number, request.prompt_ids, greedy(request.max_tokens), request.adapter.injection)
    tokens = run_to_end(engine)
    return [tokens[number] for number in range(len(requests))]


def _alone(request: Request, answer: list[int]) -> torch.Tensor:
    """PEFT's logits `[len(answer) + 1, vocab_size]` from the prompt's end on, by one pass over prompt and answer."""
    ids = torch.tensor([request.prompt_ids + answer])
    with torch.inference_mode():
        logits: torch.Tensor = request.adapter.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    return logits[-len(answer) - 1 :]


def _require_equal(engine: Engine, noting: Noting, requests: list[Request]) -> None:
    """Each token is PEFT's likeliest after the ones before it, so the answers are equal, and the logits nearly are."""
    noting.logits_of.clear()
    answers = _answers(engine, requests)
    for number, (request, answer) in enumerate(zip(requests, answers, strict=True)):
        made = torch.stack(noting.logits_of[number])
        expected = _alone(request, answer)[: len(made)]
        assert float((made - expected).abs().max()) <= LARGEST_DIFFERENCE, request.adapter.kind
        assert answer == expected.argmax(dim=-1).tolist()[: len(answer)], request.adapter.kind


def _generated(model: Any, request: Request) -> list[int]:
    ids = torch.tensor([request.prompt_ids])
    made = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=request.max_tokens, do_sample=False
    )
    answer: list[int] = made[0, ids.shape[1] :].tolist()
    eos = model.config.eos_token_id
    return answer[: answer.index(eos)] if eos in answer else answer


def test_adapters_change_the_logits_by_more_than_the_tolerance(adapters: list[PeftAdapter]) -> None:
    """Guards the proof itself."""
    ids = [3, 1, 4, 1, 5]
    logits = [_alone(Request(adapter, ids, 1), [])[-1] for adapter in adapters]
    for i, one in enumerate(logits):
        for other in logits[:i]:
            assert float((one - other).abs().max()) > 100 * LARGEST_DIFFERENCE


def test_mixed_batches_compute_what_peft_computes_alone(family: Family, adapters: list[PeftAdapter]) -> None:
    engine = engine_of(tiny_model(family))
    noting, rng = noting_of(engine), random.Random(1)
    for _ in range(5):
        _require_equal(engine, noting, _batch(adapters, rng))


@pytest.mark.slow
def test_200_mixed_batches_compute_what_peft_computes_alone(family: Family, adapters: list[PeftAdapter]) -> None:
    engine = engine_of(tiny_model(family))
    noting, rng = noting_of(engine), random.Random(2)
    for _ in range(200):
        _require_equal(engine, noting, _batch(adapters, rng))


def test_every_adapter_says_what_peft_generates(family: Family, adapters: list[PeftAdapter]) -> None:
    requests = [Request(adapter, [7, 40 + i, 9, 200], 12) for i, adapter in enumerate(adapters)]
    assert _answers(engine_of(tiny_model(family)), requests) == [
        _generated(request.adapter.model, request) for request in requests
    ]


def test_in_chunks_of_16(family: Family, adapters: list[PeftAdapter]) -> None:
    engine = engine_of(tiny_model(family), max_num_batched_tokens=16, max_num_seqs=8)
    _require_equal(engine, noting_of(engine), _batch(adapters, random.Random(3)))


def test_with_preemption(family: Family, adapters: list[PeftAdapter]) -> None:
    engine = engine_of(tiny_model(family), num_blocks=16, max_model_len=200)
    requests = [
        Request(request.adapter, request.prompt_ids, 30) for request in _batch(adapters, random.Random(4), longest=20)
    ]
    assert _answers(engine, requests) == [_generated(request.adapter.model, request) for request in requests]
    assert engine.stats().num_preemptions > 0


def test_the_prefix_cache_is_found_under_the_same_adapter_alone(adapters: list[PeftAdapter], family: Family) -> None:
    engine = engine_of(tiny_model(family))
    noting = noting_of(engine)
    prompt = list(range(40))
    for _ in range(2):
        for adapter in adapters:
            _require_equal(engine, noting, [Request(adapter, prompt, 3)])
    for adapter in adapters:
        engine.add_request(0, prompt, greedy(1), adapter.injection)
        assert engine.step()[0].num_cached_tokens >= 16
    stranger = WeightDelta("new", {})
    engine.add_request(0, prompt, greedy(1), stranger)
    assert engine.step()[0].num_cached_tokens == 0


@pytest.mark.parametrize("kind", ["lora", "ia3", "prefix tuning"])
def test_pooled_sequences_have_their_adapter(kind: str) -> None:
    adapter = adapter_of("llama", kind)
    engine = engine_of(tiny_model("llama"), max_num_batched_tokens=16, max_num_seqs=8)
    prompt = list(range(50))
    engine.add_request(0, prompt, None, None, is_pooled=True)
    engine.add_request(1, prompt, None, adapter.injection, is_pooled=True)
    means: dict[int, NDArray[np.float32] | None] = {}
    while engine.has_work:
        means |= {output.request_id: output.mean_hidden for output in engine.step() if output.is_finished}
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        output = adapter.model(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
    expected = output.hidden_states[-1][0].mean(dim=0)
    assert means[1] is not None
    assert means[0] is not None
    assert torch.allclose(torch.from_numpy(means[1]), expected, atol=1e-4)
    assert abs(means[1] - means[0]).max() > 1e-2


def _poison(kind: str) -> Injection:
    injection = adapter_of("llama", kind).injection
    if isinstance(injection, KVRows):
        return KVRows("poison", torch.full_like(injection.keys, torch.nan), injection.values)
    assert isinstance(injection, WeightDelta)
    modules = {
        path: type(delta)(*(torch.full_like(tensor, torch.nan) for tensor in delta.tensors))
        for path, delta in injection.modules.items()
    }
    return WeightDelta("poison", modules)


@pytest.mark.parametrize("kind", ["lora", "ia3", "prefix tuning"])
def test_a_poisoned_adapter_fails_its_own_sequence_alone(kind: str) -> None:
    healthy = every_kind("llama")
    engine = engine_of(tiny_model("llama"))
    noting = noting_of(engine)
    for _ in range(2):
        engine.add_request(100, [1, 2, 3], greedy(5), _poison(kind))
        for number, adapter in enumerate(healthy):
            engine.add_request(number, [number, 2, 3], greedy(5), adapter.injection)
        failed, answers = set(), defaultdict[int, list[int]](list)
        while engine.has_work:
            for output in engine.step():
                failed |= {output.request_id} if isinstance(output.error, SequenceFailed) else set()
                answers[output.request_id] += [] if output.token_id is None else [output.token_id]
            engine.check_integrity()
        assert failed == {100}
        for number, adapter in enumerate(healthy):
            request = Request(adapter, [number, 2, 3], 5)
            assert answers[number] == _generated(adapter.model, request)
    _require_equal(engine, noting, [Request(adapter, list(range(70)), 5) for adapter in healthy])


def test_what_does_not_fit_is_refused() -> None:
    engine = engine_of(tiny_model("llama"))
    rows, path = torch.zeros(3, 5, 2, 16), "model.layers.0.self_attn.q_proj"
    delta = LowRank(torch.zeros(4, 64), torch.zeros(64, 4))
    engine.require_fit(KVRows("fits", rows, rows))
    engine.require_fit(WeightDelta("fits", {path: delta}))
    for unfit in (
        KVRows("layers", rows[:2], rows[:2]),
        KVRows("heads", rows[:, :, :1], rows[:, :, :1]),
        KVRows("sizes", rows[..., :8], rows[..., :8]),
        KVRows("values", rows, rows[:, :4]),
        KVRows("nothing", rows[:, :0], rows[:, :0]),
        WeightDelta("nowhere", {"model.layers.9.self_attn.q_proj": delta}),
        WeightDelta("no linear module", {"model.norm": delta}),
        WeightDelta("the head", {"lm_head": LowRank(torch.zeros(4, 64), torch.zeros(257, 4))}),
        WeightDelta("inputs", {path: LowRank(torch.zeros(4, 32), delta.up)}),
        WeightDelta("outputs", {"model.layers.0.self_attn.k_proj": delta}),
        WeightDelta("ranks", {path: LowRank(torch.zeros(3, 64), delta.up)}),
    ):
        with pytest.raises(InjectionUnfit):
            engine.add_request(0, [1], greedy(1), unfit)
    assert not engine.has_work


def test_given_kv_and_deltas_say_nothing_without_a_prompt() -> None:
    engine = engine_of(tiny_model("llama"))
    for kind in ("prefix tuning", "lora"):
        with pytest.raises(PromptInvalid):
            engine.add_request(0, [], greedy(1), adapter_of("llama", kind).injection)


def test_given_kv_is_written_once_and_found_from_then_on() -> None:
    adapter = adapter_of("gpt2", "prefix tuning")
    engine = engine_of(tiny_model("gpt2"))
    assert adapter.injection is not None
    engine.add_request(0, [], None, adapter.injection, is_pinned=True)
    assert run_to_end(engine) == {0: []}
    written = engine.stats().num_virtual_tokens_computed
    assert written == adapter.injection.num_virtual_tokens
    noting = noting_of(engine)
    _require_equal(engine, noting, [Request(adapter, [5, 6, 7], 4)])
    assert engine.stats().num_virtual_tokens_computed == written
    engine.unpin(adapter.injection.digest)
    engine.check_integrity()
