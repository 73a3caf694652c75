"""Constraints, penalties and log-probabilities in the engine: beside free neighbours, failing, preempted."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adapters.injections import SoftPrompt
from server.engine.async_engine import AsyncEngine
from server.engine.constraint import TokenConstraint
from server.engine.engine import Engine, SequenceOutput
from server.engine.errors import LogitBiasInvalid, NoTokenAllowed, PromptInvalid, SequenceFailed
from server.engine.outputs import FinishReason, TokenLogprobs
from server.engine.sampling_params import SamplingParams
from tests.engine.build import engine_of, greedy
from tests.engine.rows import Allowing
from tests.tiny import EOS_ID, HIDDEN_SIZE, tiny_model

EVEN, ODD = set(range(0, 100, 2)), set(range(101, 200, 2))
STOP = frozenset({EOS_ID})


class Alternating:
    """An even token below 100, then an odd one above, and so on; after `num_tokens` of them only the end."""

    def __init__(self, num_tokens: int) -> None:
        self._num_tokens = num_tokens
        self.accepted: list[int] = []

    def fill(self, mask: NDArray[np.int32]) -> None:
        Allowing(self._allowed()).fill(mask)

    def accept(self, token_id: int) -> None:
        assert token_id in self._allowed()
        self.accepted.append(token_id)

    def _allowed(self) -> set[int]:
        if len(self.accepted) >= self._num_tokens:
            return {EOS_ID}
        return ODD if len(self.accepted) % 2 else EVEN


class Failing(Allowing):
    """Allows all; raises at one of its calls."""

    def __init__(self, error: BaseException, *, at_fill: int | None = None, at_accept: int | None = None) -> None:
        super().__init__(range(257))
        self._error = error
        self._left = {"fill": at_fill, "accept": at_accept}

    def fill(self, mask: NDArray[np.int32]) -> None:
        self._count("fill")
        super().fill(mask)

    def accept(self, token_id: int) -> None:
        self._count("accept")
        super().accept(token_id)

    def _count(self, call: str) -> None:
        left = self._left[call]
        if left == 0:
            raise self._error
        self._left[call] = None if left is None else left - 1


class Panic(BaseException):
    """As raised by a panic in a library written in Rust."""


def _outputs(engine: Engine) -> dict[int, list[SequenceOutput]]:
    made: dict[int, list[SequenceOutput]] = {}
    while engine.has_work:
        for output in engine.step():
            made.setdefault(output.request_id, []).append(output)
        engine.check_integrity()
    return made


def _tokens(outputs: list[SequenceOutput]) -> list[int]:
    return [output.token_id for output in outputs if output.token_id is not None]


def _add_neighbours(engine: Engine) -> None:
    for number in range(10, 18):
        params = SamplingParams(max_tokens=12, temperature=number % 2, seed=number)
        engine.add_request(number, list(range(number)), params)


def _neighbours_alone() -> dict[int, list[int]]:
    engine = engine_of(tiny_model("llama"))
    _add_neighbours(engine)
    return {number: _tokens(outputs) for number, outputs in _outputs(engine).items()}


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_constraint_holds_beside_free_neighbours(temperature: float) -> None:
    engine = engine_of(tiny_model("llama"))
    params = SamplingParams(max_tokens=30, temperature=temperature, seed=3, stop_token_ids=STOP)
    constraint = Alternating(9)
    engine.add_request(1, [1, 2, 3], params, constraint=constraint)
    _add_neighbours(engine)
    made = _outputs(engine)
    ours = _tokens(made.pop(1))
    assert len(ours) == 9
    assert all(token in (ODD if i % 2 else EVEN) for i, token in enumerate(ours))
    assert constraint.accepted == [*ours, EOS_ID]  # each once, and the stop token too
    assert {number: _tokens(outputs) for number, outputs in made.items()} == _neighbours_alone()


def test_a_constraint_is_stronger_than_min_tokens() -> None:
    engine = engine_of(tiny_model("llama"))
    params = SamplingParams(max_tokens=30, temperature=0, min_tokens=20, stop_token_ids=STOP)
    engine.add_request(1, [1, 2, 3], params, constraint=Alternating(4))
    engine.add_request(2, [1, 2, 3], replace(params, logit_bias=((EOS_ID, 100.0),)))
    engine.add_request(3, [1, 2, 3], params, constraint=Allowing({EOS_ID, 5}))
    made = _outputs(engine)
    assert len(_tokens(made[1])) == 4
    assert made[1][-1].finish_reason is FinishReason.STOP
    assert len(_tokens(made[2])) == 20  # and then the bias has its way
    assert made[2][-1].finish_reason is FinishReason.STOP
    assert _tokens(made[3])[:20] == [5] * 20


FAILURES: dict[str, Callable[[], TokenConstraint]] = {
    "fill raises": lambda: Failing(RuntimeError("secret"), at_fill=2),
    "accept raises": lambda: Failing(RuntimeError("secret"), at_accept=2),
    "fill panics": lambda: Failing(Panic("secret"), at_fill=2),
    "accept panics": lambda: Failing(Panic("secret"), at_accept=2),
    "nothing is allowed": lambda: Allowing(()),
    "only what is not in the vocabulary is allowed": lambda: Allowing({257, 287}),
}


@pytest.mark.parametrize("kind", list(FAILURES))
def test_a_constraint_that_fails_fails_its_own_sequence_alone(kind: str) -> None:
    engine = engine_of(tiny_model("llama"))
    engine.add_request(1, [1, 2, 3], greedy(30), constraint=FAILURES[kind]())
    _add_neighbours(engine)
    made = _outputs(engine)
    ours = made.pop(1)
    assert isinstance(ours[-1].error, NoTokenAllowed)
    assert "secret" not in str(ours[-1].error)
    assert ours[-1].token_id is None
    assert ours[-1].is_finished
    assert len(_tokens(ours)) == (2 if "raises" in kind or "panics" in kind else 0)
    assert {number: _tokens(outputs) for number, outputs in made.items()} == _neighbours_alone()
    stats = engine.stats()
    assert (stats.num_failed, stats.num_finished) == (1, 8)


def test_a_failure_with_its_own_words_keeps_them() -> None:
    engine = engine_of(tiny_model("llama"))
    engine.add_request(1, [1], greedy(3), constraint=Failing(SequenceFailed("too deep"), at_fill=0))
    assert str(_outputs(engine)[1][-1].error) == "too deep"


def test_a_step_that_is_computed_again_tells_a_constraint_once() -> None:
    engine = engine_of(tiny_model("llama"))
    constraint = Alternating(9)
    params = SamplingParams(max_tokens=30, temperature=0, stop_token_ids=STOP)
    engine.add_request(1, [1, 2, 3], params, constraint=constraint)
    engine.step()
    for number in range(2, 6):
        poison = SoftPrompt(str(number), torch.zeros(20, HIDDEN_SIZE + 1))
        engine.add_request(number, [1], greedy(3), poison)
        made = engine.step()
        assert any(isinstance(output.error, SequenceFailed) for output in made)
    _outputs(engine)
    assert len(constraint.accepted) == 10


def test_an_aborted_request_leaves_no_constraint_behind() -> None:
    engine = engine_of(tiny_model("llama"))
    engine.add_request(1, [1, 2, 3], greedy(30), constraint=Alternating(9))
    engine.step()
    engine.abort(1)
    engine.check_integrity()
    assert not engine._constraints


def test_a_bias_for_no_token_is_refused() -> None:
    engine = engine_of(tiny_model("llama"))
    params = SamplingParams(max_tokens=1, logit_bias=((256, 1.0), (257, 1.0)))
    with pytest.raises(LogitBiasInvalid, match="0 to 256"):
        engine.add_request(1, [1], params)
    assert issubclass(LogitBiasInvalid, PromptInvalid)
    assert not engine.has_work


# -- through the thread, in a cache that cannot hold all --------------------------------------------------------------

REQUESTS: list[tuple[SamplingParams, bool]] = [
    (
        SamplingParams(
            max_tokens=100,
            temperature=[0.0, 0.9][number % 2],
            seed=number,
            frequency_penalty=[0.0, 0.7, 0.2][number % 3],
            presence_penalty=[0.0, 0.3][number % 2],
            repetition_penalty=[1.0, 1.0, 1.3, 1.1][number % 4],
            logit_bias=((7, 3.0),) if number % 5 == 0 else (),
            min_tokens=number,
            stop_token_ids=STOP,
            num_logprobs=[None, 0, 4][number % 3],
        ),
        number % 4 == 3,
    )
    for number in range(12)
]


async def _ask(engine: AsyncEngine, number: int) -> tuple[list[int], list[TokenLogprobs]]:
    params, is_constrained = REQUESTS[number]
    prompt = [(number * 31 + i) % 256 for i in range(20 + 5 * number)]
    token_ids: list[int] = []
    logprobs: list[TokenLogprobs] = []
    async for delta in engine.generate(prompt, params, constraint=Alternating(80) if is_constrained else None):
        assert len(delta.logprobs) == (0 if params.num_logprobs is None else len(delta.token_ids))
        token_ids += delta.token_ids
        logprobs += delta.logprobs
    return token_ids, logprobs


async def _answers(num_blocks: int) -> tuple[list[tuple[list[int], list[TokenLogprobs]]], int]:
    """What all requests get at once, and how many preemptions there were."""
    engine = AsyncEngine(engine_of(tiny_model("llama"), num_blocks=num_blocks))
    engine.start()
    answers = await asyncio.gather(*(_ask(engine, number) for number in range(len(REQUESTS))))
    num_preemptions = engine.stats().num_preemptions
    await engine.stop(grace_seconds=5)
    return answers, num_preemptions


async def test_preemption_disturbs_neither_penalties_nor_constraints_nor_logprobs() -> None:
    roomy, none = await _answers(512)
    narrow, many = await _answers(54)
    assert none == 0
    assert many > 3
    assert [tokens for tokens, _ in narrow] == [tokens for tokens, _ in roomy]
    for number, ((tokens, logprobs), (_, expected)) in enumerate(zip(narrow, roomy, strict=True)):
        params, is_constrained = REQUESTS[number]
        assert len(tokens) == 80 if is_constrained else len(tokens) >= number
        assert [one.token_id for one in logprobs] == ([] if params.num_logprobs is None else tokens)
        assert [len(one.top) for one in logprobs] == [params.num_logprobs] * len(logprobs)
        assert [one.logprob for one in logprobs] == pytest.approx([one.logprob for one in expected], abs=1e-4)
