"""How likely prompts are: a plain transformers forward's log-softmax, whatever is computed beside them."""

import random
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from adapters.injections import SoftPrompt
from server.engine.async_engine import AsyncEngine
from server.engine.batch import Batch
from server.engine.engine import Engine
from server.engine.errors import SequenceFailed
from server.engine.outputs import FinishReason, PromptLogprobs
from server.engine.sampling_params import SamplingParams
from server.engine.scheduler import MAX_SCORED_TOKENS
from server.engine.step_inputs import StepInputs
from tests.engine.accelerating import CallRecorder, accelerator_of
from tests.engine.build import engine_of, greedy, run_to_end, runner_of
from tests.engine.peft_kinds import PeftAdapter, adapter_of, every_kind
from tests.tiny import Family, tiny_model

LENGTHS = (1, 2, 5, 16, 17, 60, 129, 333)
NUM_TOP = 3
LARGEST_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Prompt:
    token_ids: list[int]
    adapter: PeftAdapter


@pytest.fixture(scope="module", params=["llama", "bloom"])
def family(request: pytest.FixtureRequest) -> Family:
    name: Family = request.param
    return name


@pytest.fixture(scope="module")
def adapters(family: Family) -> list[PeftAdapter]:
    return every_kind(family)


def _prompts(adapters: Items[PeftAdapter]) -> list[Prompt]:
    """Several begin alike, so that the prefix cache has something to find."""
    rng = random.Random(3)
    prompts = []
    for number in range(2 * max(len(LENGTHS), len(adapters))):
        beginning = [7] * (32 * (number % 2))
        rest = [rng.randrange(256) for _ in range(LENGTHS[number % len(LENGTHS)])]
        prompts.append(Prompt(beginning + rest, adapters[number % len(adapters)]))
    return prompts


def logprobs_alone(model: Any, token_ids: list[int]) -> torch.Tensor:
    """Log-probabilities `[N - 1, vocab_size]` after all but the last of the ids, in float64, by one plain pass."""
    ids = torch.tensor([token_ids])
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    return logits[-len(token_ids) :][:-1].double().log_softmax(dim=-1)


def scoring(max_tokens: int = 0, num_top: int = NUM_TOP) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, temperature=0, num_prompt_logprobs=num_top)


def scored(engine: Engine, prompts: Items[Prompt], *, max_tokens: int = 0) -> list[PromptLogprobs]:
    """Run everything that waits to its end, these prompts among it; each is told of once."""
    for number, prompt in enumerate(prompts):
        engine.add_request(1000 + number, prompt.token_ids, scoring(max_tokens), prompt.adapter.injection)
    told: dict[int, PromptLogprobs] = {}
    while engine.has_work:
        for output in engine.step():
            assert output.error is None, output.error
            if output.prompt_logprobs is not None:
                assert output.request_id not in told
                told[output.request_id] = output.prompt_logprobs
        engine.check_integrity()
    return [told[1000 + number] for number in range(len(prompts))]


def require_equal(made: PromptLogprobs, expected: torch.Tensor, token_ids: list[int]) -> None:
    own = expected.gather(1, torch.tensor(token_ids[1:])[:, None])[:, 0]
    assert len(made.logprobs) == len(token_ids) - 1
    if len(own):
        assert float((torch.from_numpy(made.logprobs) - own).abs().max()) <= LARGEST_DIFFERENCE
        assert made.top_ids.shape == made.top_logprobs.shape == (len(own), NUM_TOP)
        assert float((torch.from_numpy(made.top_logprobs) - expected.topk(NUM_TOP).values).abs().max()) <= 1e-4
        listed = expected.gather(1, torch.from_numpy(made.top_ids).long())
        assert float((torch.from_numpy(made.top_logprobs) - listed).abs().max()) <= LARGEST_DIFFERENCE


@pytest.mark.parametrize(
    ("num_blocks", "max_num_batched_tokens", "max_tokens", "preempts"),
    [(512, 512, 0, False), (512, 16, 3, False), (32, 512, 40, True)],
)
def test_prompts_of_every_adapter_beside_decoding_neighbours(
    family: Family,
    adapters: list[PeftAdapter],
    num_blocks: int,
    max_num_batched_tokens: int,
    max_tokens: int,
    *,
    preempts: bool,
) -> None:
    prompts = _prompts(adapters)
    engine = engine_of(
        tiny_model(family),
        num_blocks=num_blocks,
        max_model_len=470,
        max_num_seqs=16,
        max_num_batched_tokens=max_num_batched_tokens,
    )
    for number, prompt in enumerate(prompts[:8]):
        engine.add_request(number, prompt.token_ids[:60], greedy(60), prompt.adapter.injection)
    for _ in range(3):
        engine.step()
    for made, prompt in zip(scored(engine, prompts, max_tokens=max_tokens), prompts, strict=True):
        require_equal(made, logprobs_alone(prompt.adapter.model, prompt.token_ids), prompt.token_ids)
    assert (engine.stats().num_preemptions > 0) is preempts


def test_the_prefix_cache_hides_no_token_and_keeps_what_was_scored(family: Family, adapters: list[PeftAdapter]) -> None:
    prompts = _prompts(adapters)
    engine = engine_of(tiny_model(family), num_blocks=2000)
    scored(engine, prompts)
    for number, prompt in enumerate(prompts):
        engine.add_request(number, prompt.token_ids, greedy(1), prompt.adapter.injection)
        num_cached = [output.num_cached_tokens for output in engine.step()]
        assert num_cached >= [(len(prompt.token_ids) - 16) // 16 * 16 if len(prompt.token_ids) > 32 else 0]
        run_to_end(engine)
    num_virtual_tokens = engine.stats().num_virtual_tokens_computed
    for made, prompt in zip(scored(engine, prompts), prompts, strict=True):
        require_equal(made, logprobs_alone(prompt.adapter.model, prompt.token_ids), prompt.token_ids)
    assert engine.stats().num_virtual_tokens_computed == num_virtual_tokens


def test_recorded_decode_steps_score_and_answer_too() -> None:
    """As on CUDA: prompts of one token more than a step scores, whose last one alone is recorded, are among them."""
    recorder, base = CallRecorder(), adapter_of("llama", "base")
    prompts = [Prompt([number] * length, base) for number, length in enumerate((2, 3, MAX_SCORED_TOKENS + 1, 129, 40))]
    engine = engine_of(tiny_model("llama"), max_num_seqs=8, accelerator=accelerator_of(recorder))
    num_recorded = recorder.num_replayed
    for _ in range(2):
        for made, prompt in zip(scored(engine, prompts, max_tokens=3), prompts, strict=True):
            require_equal(made, logprobs_alone(base.model, prompt.token_ids), prompt.token_ids)
    assert recorder.num_replayed > num_recorded


def test_answers_are_the_same_scored_or_not(family: Family, adapters: list[PeftAdapter]) -> None:
    prompts = _prompts(adapters)
    plain, scoring_too = engine_of(tiny_model(family)), engine_of(tiny_model(family))
    for number, prompt in enumerate(prompts):
        plain.add_request(
            number, prompt.token_ids, SamplingParams(max_tokens=12, temperature=0), prompt.adapter.injection
        )
        scoring_too.add_request(number, prompt.token_ids, scoring(12), prompt.adapter.injection)
    assert run_to_end(plain) == run_to_end(scoring_too)


def test_without_tokens_a_request_ends_with_its_prompt() -> None:
    engine = engine_of(tiny_model("llama"))
    engine.add_request(1, [5, 6, 7], scoring(0))
    engine.add_request(2, [5, 6, 7], SamplingParams(max_tokens=0))
    outputs = {output.request_id: output for output in engine.step()}
    for output in outputs.values():
        assert (output.token_id, output.finish_reason, output.is_finished) == (None, FinishReason.LENGTH, True)
    assert outputs[2].prompt_logprobs is None
    assert outputs[1].prompt_logprobs is not None
    assert len(outputs[1].prompt_logprobs.logprobs) == 2
    assert (engine.stats().num_finished, engine.has_work) == (2, False)


def test_a_step_never_has_the_logits_of_a_whole_prompt() -> None:
    engine = engine_of(tiny_model("llama"), max_num_batched_tokens=512)
    forward, most = runner_of(engine)._forward, []
    plain = forward.logits

    def noted(batch: Batch, inputs: StepInputs, rows: Items[int]) -> torch.Tensor:
        most.append(len(rows))
        return plain(batch, inputs, rows)

    forward.logits = noted  # type: ignore[method-assign]
    for number in range(4):
        engine.add_request(number, [number] * 500, scoring(1))
    run_to_end(engine)
    assert max(most) <= MAX_SCORED_TOKENS + 4
    assert sum(most) == 4 * 500


@pytest.mark.parametrize("max_tokens", [0, 5])
def test_what_is_not_a_number_fails_alone(max_tokens: int) -> None:
    poison = SoftPrompt("poison", torch.full((4, 64), float("nan")))
    engine = engine_of(tiny_model("llama"))
    engine.add_request(1, list(range(30)), scoring(max_tokens), poison)
    engine.add_request(2, list(range(40)), scoring(max_tokens))
    outputs = {output.request_id: output for output in engine.step()}
    assert isinstance(outputs[1].error, SequenceFailed)
    assert (outputs[1].prompt_logprobs, outputs[1].token_id) == (None, None)
    assert outputs[2].prompt_logprobs is not None
    require_equal(outputs[2].prompt_logprobs, logprobs_alone(tiny_model("llama"), list(range(40))), list(range(40)))
    engine.check_integrity()


async def test_through_the_engines_thread() -> None:
    engine, token_ids = AsyncEngine(engine_of(tiny_model("llama"))), list(range(200))
    engine.start()
    try:
        for max_tokens in (0, 5):
            deltas = [delta async for delta in engine.generate(token_ids, scoring(max_tokens))]
            assert deltas[0].prompt_logprobs is not None
            require_equal(deltas[0].prompt_logprobs, logprobs_alone(tiny_model("llama"), token_ids), token_ids)
            assert all(delta.prompt_logprobs is None for delta in deltas[1:])
            assert sum(len(delta.token_ids) for delta in deltas) == max_tokens
            assert deltas[-1].finish_reason is FinishReason.LENGTH
    finally:
        await engine.stop(grace_seconds=0)


def test_settings_that_are_refused() -> None:
    with pytest.raises(ValueError, match="max_tokens must be 0 or more"):
        SamplingParams(max_tokens=-1)
    with pytest.raises(ValueError, match="num_prompt_logprobs must be 0 to 20"):
        SamplingParams(max_tokens=1, num_prompt_logprobs=21)
