"""The synchronous engine: adapters computed once, aborts, limits, poison, seeds."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adapters.injections import SoftPrompt
from server.engine.engine import Engine
from server.engine.errors import (
    CacheTooSmall,
    EngineError,
    PromptInvalid,
    PromptTooLong,
)
from server.engine.forward import StockForward
from server.engine.sampling_params import SamplingParams
from tests.engine.build import engine_of, greedy, run_to_end, runner_of, soft_prompt_in
from tests.tiny import HIDDEN_SIZE, Family, save_tiny_adapter, tiny_model


@pytest.fixture
def engine() -> Engine:
    return engine_of(tiny_model("llama"))


@pytest.fixture
def soft_prompt(tmp_path: Path) -> SoftPrompt:
    return soft_prompt_in(save_tiny_adapter(tiny_model("llama"), tmp_path, num_virtual_tokens=20, seed=1))


def _first_step_tokens(engine: Engine) -> int:
    """Tokens that the next step computes, read off the schedule without running it twice."""
    before = engine._scheduler.schedule
    sizes: list[int] = []

    def watched() -> object:
        batch = before()
        sizes.append(batch.num_tokens)
        return batch

    engine._scheduler.schedule = watched  # type: ignore[method-assign, assignment]
    engine.step()
    engine._scheduler.schedule = before  # type: ignore[method-assign]
    return sizes[0]


def test_virtual_tokens_are_computed_once(engine: Engine, soft_prompt: SoftPrompt) -> None:
    engine.add_request(1, [], None, soft_prompt)
    assert _first_step_tokens(engine) == 20
    assert not engine.has_work
    engine.add_request(2, [5, 6, 7], greedy(1), soft_prompt)
    assert _first_step_tokens(engine) == 3
    engine.add_request(3, [8, 9, 10, 11], greedy(1), soft_prompt)
    assert _first_step_tokens(engine) == 4
    engine.check_integrity()


def test_the_same_prompt_under_new_content_is_computed_anew(engine: Engine, soft_prompt: SoftPrompt) -> None:
    """Same-name reload: the digest differs, so no stale KV is found."""
    changed = replace(soft_prompt, digest="other", embeddings=soft_prompt.embeddings.flip(0) * 3)
    fresh = engine_of(tiny_model("llama"))
    answers = []
    for number, (one, prompt) in enumerate([(engine, soft_prompt), (engine, changed), (fresh, changed)]):
        one.add_request(number, list(range(40)), greedy(12), prompt)
        answers.append(run_to_end(one)[number])
    assert answers[1] == answers[2] != answers[0]


def test_cached_prompt_tokens_are_counted_without_virtual_ones(engine: Engine, soft_prompt: SoftPrompt) -> None:
    counts = []
    for number in range(2):
        engine.add_request(number, list(range(40)), greedy(1), soft_prompt)
        counts += [output.num_cached_tokens for output in engine.step()]
    assert counts == [0, 28]  # blocks of 16: 48 of 60 tokens are known, 20 of them virtual


def test_an_abort_frees_everything(engine: Engine, soft_prompt: SoftPrompt) -> None:
    free = engine.stats().num_free_blocks
    engine.add_request(1, list(range(100)), greedy(50), soft_prompt)
    engine.add_request(2, list(range(50)), greedy(50))
    engine.step()
    engine.abort(1)
    engine.abort(2)
    engine.abort(2)
    engine.abort(77)
    engine.check_integrity()
    stats = engine.stats()
    assert (stats.num_free_blocks, stats.num_aborted, stats.num_running) == (free, 2, 0)
    assert not engine.has_work


def test_what_does_not_fit_is_refused_with_its_numbers(engine: Engine, soft_prompt: SoftPrompt) -> None:
    with pytest.raises(PromptTooLong, match=r"20 virtual tokens \+ 700 prompt tokens \+ 100 answer tokens .* 800"):
        engine.add_request(1, [0] * 700, greedy(100), soft_prompt)
    with pytest.raises(PromptInvalid, match="empty"):
        engine.add_request(1, [], greedy(1))
    for token in (-1, 257):
        with pytest.raises(PromptInvalid, match="0 to 256"):
            engine.add_request(1, [1, token], greedy(1))
    assert not engine.has_work
    with pytest.raises(CacheTooSmall, match="--kv-cache-memory"):
        engine_of(tiny_model("llama"), num_blocks=50)


def _poison() -> dict[str, SoftPrompt]:
    return {
        "not a number": SoftPrompt("nan", torch.full((20, HIDDEN_SIZE), float("nan"))),
        "a wrong width": SoftPrompt("wide", torch.zeros(20, HIDDEN_SIZE + 1)),
    }


@pytest.mark.parametrize("kind", list(_poison()))
def test_poison_never_hurts_a_neighbour(kind: str, soft_prompt: SoftPrompt) -> None:
    """The neighbours' tokens are those of a run without the poison; the poison alone fails."""
    answers = []
    for poison in (None, _poison()[kind]):
        engine = engine_of(tiny_model("llama"))
        errors: dict[int, EngineError] = {}
        tokens: dict[int, list[int]] = {}
        for number in range(9):
            if number == 4 and poison is not None:
                engine.add_request(99, [1, 2, 3], greedy(8), poison)
            engine.add_request(number, list(range(number, number + 30)), greedy(8), soft_prompt if number % 2 else None)
        while engine.has_work:
            for output in engine.step():
                if output.error is not None:
                    errors[output.request_id] = output.error
                elif output.token_id is not None:
                    tokens.setdefault(output.request_id, []).append(output.token_id)
            engine.check_integrity()
        assert set(errors) == (set() if poison is None else {99})
        answers.append(tokens)
    assert answers[0] == answers[1]


def test_a_seed_decides_whatever_runs_beside_it(soft_prompt: SoftPrompt) -> None:
    params = SamplingParams(max_tokens=20, temperature=1.0, top_p=0.9, seed=5)
    alone = engine_of(tiny_model("llama"))
    alone.add_request(1, [1, 2, 3], params, soft_prompt)
    crowded = engine_of(tiny_model("llama"), num_blocks=54)
    for number in range(10, 40):
        crowded.add_request(number, list(range(number)), SamplingParams(max_tokens=30, seed=number))
    crowded.add_request(1, [1, 2, 3], params, soft_prompt)
    assert run_to_end(alone)[1] == run_to_end(crowded)[1]


def test_the_ledger_adds_up(engine: Engine) -> None:
    for number in range(6):
        engine.add_request(number, [number, 1], greedy(5))
    engine.step()
    engine.abort(0)
    engine.add_request(6, [1], greedy(5), _poison()["a wrong width"])
    while engine.has_work:
        engine.step()
        stats = engine.stats()
        ended = stats.num_finished + stats.num_failed + stats.num_aborted
        assert stats.num_accepted == ended + stats.num_running + stats.num_waiting
    assert (stats.num_finished, stats.num_failed, stats.num_aborted) == (5, 1, 1)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
def test_what_a_poisoned_request_leaves_in_the_cache_harms_nobody(family: Family) -> None:
    """A soft prompt that is not a number stays in the prefix cache, in the first of all blocks."""
    engine, clean = engine_of(tiny_model(family)), engine_of(tiny_model(family))
    poison = SoftPrompt("poison", torch.full((20, HIDDEN_SIZE), torch.nan))
    engine.add_request(0, [], None, poison)
    run_to_end(engine)
    forward = runner_of(engine)._forward
    assert isinstance(forward, StockForward)
    assert forward._cache.values[1][0].isnan().all()
    for some in (engine, clean):
        for number, length in enumerate((3, 40, 18), start=1):
            some.add_request(number, list(range(length)), greedy(24))
    assert run_to_end(engine) == run_to_end(clean)
