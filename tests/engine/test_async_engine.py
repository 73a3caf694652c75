"""The engine behind its thread: streams, aborts, draining, death."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from server.engine import stream
from server.engine.async_engine import AsyncEngine
from server.engine.errors import (
    EngineDead,
    EngineDown,
    EngineOverloaded,
    EngineStopping,
    PromptTooLong,
    ReaderStalled,
    SequenceFailed,
)
from server.engine.outputs import FinishReason
from server.engine.sampling_params import SamplingParams
from tests.engine.build import engine_of, greedy, run_to_end, soft_prompt_in
from tests.engine.faults import FaultyRunner
from tests.engine.test_engine import _poison
from tests.tiny import save_tiny_adapter, tiny_model

ENDLESS = SamplingParams(max_tokens=700, temperature=0)


@pytest.fixture
async def engine() -> AsyncIterator[AsyncEngine]:
    engine = AsyncEngine(engine_of(tiny_model("llama")))
    engine.start()
    yield engine
    if engine.is_alive:
        await engine.stop(grace_seconds=0)


async def _collect(
    engine: AsyncEngine, prompt: list[int], params: SamplingParams
) -> tuple[list[int], FinishReason | None]:
    tokens: list[int] = []
    reason = None
    async for delta in engine.generate(prompt, params):
        assert reason is None, "nothing comes after the finish reason"
        tokens += delta.token_ids
        reason = delta.finish_reason
    return tokens, reason


async def _idle(engine: AsyncEngine) -> None:
    async with asyncio.timeout(5):
        while engine.stats().num_running or engine.stats().num_waiting:
            await asyncio.sleep(0.002)


async def test_streams_say_what_the_synchronous_engine_says(engine: AsyncEngine) -> None:
    reference = engine_of(tiny_model("llama"))
    prompts = [list(range(i, 3 * i + 1)) for i in range(20)]
    for i, prompt in enumerate(prompts):
        reference.add_request(i, prompt, greedy(15))
    expected = run_to_end(reference)
    answers = await asyncio.gather(*(_collect(engine, prompt, greedy(15)) for prompt in prompts))
    assert [tokens for tokens, _ in answers] == [expected[i] for i in range(20)]
    assert {reason for _, reason in answers} <= {FinishReason.STOP, FinishReason.LENGTH}


async def test_a_closed_stream_frees_its_sequence(engine: AsyncEngine) -> None:
    free = engine.stats().num_free_blocks
    async with aclosing(engine.generate([1, 2, 3], ENDLESS)) as deltas:
        async for _ in deltas:
            break
    await _idle(engine)
    assert engine.stats().num_free_blocks == free
    assert engine.stats().num_aborted == 1


async def test_a_cancelled_task_frees_its_sequence(engine: AsyncEngine) -> None:
    task = asyncio.create_task(_collect(engine, [1, 2, 3], ENDLESS))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _idle(engine)
    assert engine.stats().num_aborted == 1


@pytest.mark.parametrize("num_logprobs", [None, 2])
async def test_a_request_that_nobody_reads_is_aborted_and_its_reader_gets_what_was_kept(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, num_logprobs: int | None
) -> None:
    monkeypatch.setattr(stream, "MAX_UNREAD_TOKENS" if num_logprobs is None else "MAX_UNREAD_LOGPROBS", 20)
    beside = asyncio.create_task(_collect(engine, [4, 5], greedy(200)))
    endless = SamplingParams(max_tokens=700, temperature=0, num_logprobs=num_logprobs)
    async with aclosing(engine.generate([1, 2, 3], endless)) as deltas:
        num_read = len((await anext(deltas)).token_ids)
        async with asyncio.timeout(10):
            while not engine.stats().num_aborted:
                await asyncio.sleep(0.002)
        num_read += len((await anext(deltas)).token_ids)
        with pytest.raises(ReaderStalled):
            await anext(deltas)
    assert 20 < num_read < 200
    assert len((await beside)[0]) == 200
    await _idle(engine)
    assert engine.stats().num_aborted == 1


async def test_tokens_that_pile_up_come_as_one_delta(engine: AsyncEngine) -> None:
    async with aclosing(engine.generate([1, 2, 3], SamplingParams(max_tokens=50, temperature=0))) as deltas:
        first = await anext(deltas)
        await _idle(engine)
        rest = [delta async for delta in deltas]
    assert len(rest) == 1
    assert len(first.token_ids) + len(rest[0].token_ids) == 50
    assert rest[0].finish_reason is FinishReason.LENGTH


async def test_errors_reach_the_one_who_asked(engine: AsyncEngine) -> None:
    with pytest.raises(PromptTooLong):
        await _collect(engine, [1] * 900, greedy(5))
    with pytest.raises(SequenceFailed):
        async for _ in engine.generate([1], greedy(5), injection=_poison()["not a number"]):
            pass
    assert (await _collect(engine, [1, 2], greedy(5)))[1] is not None


async def test_a_full_queue_refuses() -> None:
    engine = AsyncEngine(engine_of(tiny_model("llama"), max_num_seqs=1, max_num_waiting=1))
    engine.start()
    results = await asyncio.gather(*(_collect(engine, [i], greedy(30)) for i in range(20)), return_exceptions=True)
    assert any(isinstance(result, EngineOverloaded) for result in results)
    assert all(isinstance(result, tuple | EngineOverloaded) for result in results)
    await engine.stop(grace_seconds=0)


async def test_places_are_bounded_and_come_free() -> None:
    engine = AsyncEngine(engine_of(tiny_model("llama"), max_num_seqs=1, max_num_waiting=1))
    engine.start()
    with engine.place(), engine.place(), pytest.raises(EngineOverloaded, match="2 requests"), engine.place():
        pass
    with engine.place(), pytest.raises(ZeroDivisionError), engine.place():
        raise ZeroDivisionError
    with engine.place():
        engine.begin_drain()
    with pytest.raises(EngineStopping), engine.place():
        pass
    await engine.stop(grace_seconds=0)


async def test_draining_finishes_what_runs_and_takes_nothing_new(engine: AsyncEngine) -> None:
    running = [asyncio.create_task(_collect(engine, [i], SamplingParams(max_tokens=60))) for i in range(8)]
    await asyncio.sleep(0.01)
    stopping = asyncio.create_task(engine.stop(grace_seconds=30))
    await asyncio.sleep(0)
    with pytest.raises(EngineStopping):
        await _collect(engine, [1], greedy(1))
    assert [len(tokens) for tokens, _ in await asyncio.gather(*running)] == [60] * 8
    await stopping
    assert not engine.is_alive


async def test_what_outlasts_the_grace_period_hears_that_the_server_stops(engine: AsyncEngine) -> None:
    task = asyncio.create_task(_collect(engine, [1], ENDLESS))
    await asyncio.sleep(0.02)
    await engine.stop(grace_seconds=0.05)
    with pytest.raises(EngineStopping):
        await task


async def test_a_dead_thread_fails_every_waiter() -> None:
    inner = engine_of(tiny_model("llama"))
    engine = AsyncEngine(inner)
    engine.start()
    task = asyncio.create_task(_collect(engine, [1], ENDLESS))
    await asyncio.sleep(0.02)
    inner.step = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(EngineDead):
        await task
    assert not engine.is_alive
    assert engine.fault == "ZeroDivisionError"
    with pytest.raises(EngineDown):
        await _collect(engine, [1], greedy(1))


async def test_an_engine_that_died_starts_anew_with_empty_books() -> None:
    inner = engine_of(tiny_model("llama"))
    expected = (await _answered_alone([7, 8, 9]))[0]
    runner = FaultyRunner(inner._runner)
    inner._runner = runner
    engine = AsyncEngine(inner)
    engine.start()
    running = [asyncio.create_task(_collect(engine, [i, 2, 3], ENDLESS)) for i in range(1, 9)]
    while engine.stats().num_running < 8:
        await asyncio.sleep(0.002)
    runner.num_faults = 1
    for outcome in await asyncio.gather(*running, return_exceptions=True):
        assert isinstance(outcome, EngineDead)
    assert engine.fault == "KeyError"
    await asyncio.to_thread(engine.restart)
    stats = engine.stats()
    assert (stats.num_accepted, stats.num_failed, stats.num_running) == (8, 8, 0)
    assert stats.num_free_blocks == stats.num_blocks
    assert (await _collect(engine, [7, 8, 9], greedy(12)))[0] == expected
    await engine.stop(grace_seconds=0)
    inner.check_integrity()


async def test_a_draining_engine_that_died_is_not_started_anew() -> None:
    inner = engine_of(tiny_model("llama"))
    inner._runner = runner = FaultyRunner(inner._runner)
    runner.num_faults = 1
    engine = AsyncEngine(inner)
    engine.start()
    with pytest.raises(EngineDead):
        await _collect(engine, [1], greedy(1))
    engine.begin_drain()
    engine.restart()
    assert not engine.is_alive
    await engine.stop(grace_seconds=0)


async def _answered_alone(prompt: list[int]) -> tuple[list[int], FinishReason | None]:
    engine = AsyncEngine(engine_of(tiny_model("llama")))
    engine.start()
    answer = await _collect(engine, prompt, greedy(12))
    await engine.stop(grace_seconds=0)
    return answer


async def test_prefill_leaves_the_virtual_tokens_in_the_cache(engine: AsyncEngine, tmp_path: Path) -> None:
    soft_prompt = soft_prompt_in(save_tiny_adapter(tiny_model("llama"), tmp_path, num_virtual_tokens=20, seed=1))
    await engine.prefill(soft_prompt)
    await _idle(engine)
    assert engine.stats().num_finished == 1
