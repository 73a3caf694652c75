"""Who computes what in a step. The model's part is played by a rule: the token after a sequence is its length."""

import random

import pytest

from server.engine.batch import Batch, StepResult
from server.engine.block_manager import BlockManager
from server.engine.config import EngineConfig
from server.engine.errors import EngineOverloaded, SequenceFailed
from server.engine.outputs import FinishReason
from server.engine.sampling_params import SamplingParams
from server.engine.scheduler import Scheduler
from server.engine.sequence import Sequence, SequenceStatus, cache_seed


def _scheduler(
    *, num_blocks: int = 64, max_num_seqs: int = 8, budget: int = 32, max_num_waiting: int = 1000
) -> tuple[Scheduler, BlockManager]:
    blocks = BlockManager(num_blocks, 4)
    config = EngineConfig(
        max_model_len=200,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=budget,
        max_num_waiting=max_num_waiting,
        block_size=4,
    )
    return Scheduler(config, blocks), blocks


def _sequence(request_id: int, num_prompt: int, *, max_tokens: int = 5, stop: int | None = None) -> Sequence:
    params = SamplingParams(max_tokens=max_tokens, stop_token_ids=frozenset() if stop is None else frozenset({stop}))
    prompt = [request_id * 1000 + i for i in range(num_prompt)]
    return Sequence.create(request_id, prompt, params, cache_seed=cache_seed("model", None))


def _run(batch: Batch) -> StepResult:
    return StepResult({i.sequence.request_id: i.sequence.num_tokens for i in batch.items if i.samples}, {})


def _plan(batch: Batch) -> list[tuple[int, int, int]]:
    return [(item.sequence.request_id, item.start, item.num_tokens) for item in batch.items]


def _step(scheduler: Scheduler) -> list[tuple[int, int, int]]:
    batch = scheduler.schedule()
    scheduler.postprocess(batch, _run(batch))
    scheduler.check_integrity()
    return _plan(batch)


def test_sequences_join_and_leave_the_batch_at_every_step() -> None:
    scheduler, _ = _scheduler()
    scheduler.add(_sequence(1, 6, max_tokens=2))
    batch = scheduler.schedule()
    assert _plan(batch) == [(1, 0, 6)]
    scheduler.postprocess(batch, _run(batch))
    scheduler.add(_sequence(2, 3))
    batch = scheduler.schedule()
    assert _plan(batch) == [(1, 6, 1), (2, 0, 3)]
    [first, second] = scheduler.postprocess(batch, _run(batch))
    assert (first.finish_reason, second.finish_reason) == (FinishReason.LENGTH, None)
    assert _plan(scheduler.schedule()) == [(2, 3, 1)]


def test_a_long_prompt_is_chunked_beside_running_sequences() -> None:
    scheduler, _ = _scheduler(budget=10)
    scheduler.add(_sequence(1, 3))
    batch = scheduler.schedule()
    scheduler.postprocess(batch, _run(batch))
    scheduler.add(_sequence(2, 25))
    plans = []
    for _ in range(4):
        plans.append(_plan(batch := scheduler.schedule()))
        scheduler.postprocess(batch, _run(batch))
    assert plans == [
        [(1, 3, 1), (2, 0, 9)],
        [(1, 4, 1), (2, 9, 9)],
        [(1, 5, 1), (2, 18, 7)],
        [(1, 6, 1), (2, 25, 1)],
    ]


def test_the_youngest_is_preempted_and_goes_on_where_it_was() -> None:
    scheduler, _ = _scheduler(num_blocks=5)
    old, young = _sequence(1, 7, max_tokens=8), _sequence(2, 7, max_tokens=8)
    scheduler.add(old)
    scheduler.add(young)
    while scheduler.has_work:
        batch = scheduler.schedule()
        scheduler.postprocess(batch, _run(batch))
        scheduler.check_integrity()
    assert scheduler.num_preemptions > 0
    assert old.token_ids[7:] == young.token_ids[7:] == list(range(7, 15))


def test_a_stop_token_ends_a_sequence_and_is_not_part_of_it() -> None:
    scheduler, _ = _scheduler()
    sequence = _sequence(1, 3, stop=4)
    scheduler.add(sequence)
    for _ in range(2):
        batch = scheduler.schedule()
        scheduler.postprocess(batch, _run(batch))
    assert (sequence.finish_reason, sequence.token_ids[3:]) == (FinishReason.STOP, [3])
    assert not scheduler.has_work


def test_a_failed_sequence_leaves_and_its_neighbour_goes_on() -> None:
    scheduler, blocks = _scheduler()
    bad, good = _sequence(1, 3), _sequence(2, 3)
    scheduler.add(bad)
    scheduler.add(good)
    batch = scheduler.schedule()
    changed = scheduler.postprocess(batch, StepResult({2: 7}, {1: SequenceFailed("bad")}))
    assert changed == [bad, good]
    assert (bad.status, bad.finish_reason) == (SequenceStatus.FINISHED, None)
    assert _plan(scheduler.schedule()) == [(2, 3, 1)]
    scheduler.remove(good)
    assert blocks.num_free_blocks == 64


def test_when_every_place_is_taken_a_request_is_refused() -> None:
    """Whether they came one by one or all between two steps."""
    scheduler, _ = _scheduler(max_num_seqs=2, max_num_waiting=2)
    for number in range(4):
        scheduler.add(_sequence(number, 3))
    for _ in range(2):
        with pytest.raises(EngineOverloaded, match="4 requests are running or waiting"):
            scheduler.add(_sequence(9, 3))
        scheduler.postprocess(batch := scheduler.schedule(), _run(batch))
    assert (scheduler.num_running, scheduler.num_waiting) == (2, 2)


def test_a_short_prompt_does_not_wait_for_a_long_one_before_it() -> None:
    scheduler, _ = _scheduler(num_blocks=2000, budget=512)
    scheduler.add(_sequence(1, 4000, max_tokens=1))
    scheduler.add(_sequence(2, 300))
    scheduler.add(_sequence(3, 100))
    assert _step(scheduler) == [(1, 0, 256), (3, 0, 100), (2, 0, 156)]
    assert _step(scheduler) == [(3, 100, 1), (1, 256, 48), (2, 156, 48)]  # one decodes now: the chunks are small
    scheduler.add(_sequence(4, 20))
    assert _step(scheduler) == [(3, 101, 1), (1, 304, 64), (4, 0, 20), (2, 204, 44)]


def test_a_long_prompt_is_never_starved_by_short_ones() -> None:
    scheduler, _ = _scheduler(num_blocks=2000, max_num_seqs=16, budget=64)
    scheduler.add(_sequence(0, 1000, max_tokens=1))
    computed = 0
    for number in range(1, 40):
        scheduler.add(_sequence(number, 60, max_tokens=1))
        plan = _step(scheduler)
        assert plan[0] == (0, computed, min(32, 1000 - computed))
        computed += plan[0][2]
        if computed == 1000:
            break
    assert computed == 1000


def test_what_finds_no_room_is_not_overtaken() -> None:
    scheduler, _ = _scheduler(num_blocks=10, budget=64)
    scheduler.add(_sequence(1, 20))
    assert _step(scheduler) == [(1, 0, 20)]
    scheduler.add(_sequence(2, 30))
    scheduler.add(_sequence(3, 3))
    assert _step(scheduler) == [(1, 20, 1)]


def test_a_single_prompt_has_the_whole_budget_where_nobody_decodes() -> None:
    scheduler, _ = _scheduler(num_blocks=2000, budget=512)
    scheduler.add(_sequence(1, 1000))
    assert [_step(scheduler) for _ in range(2)] == [[(1, 0, 512)], [(1, 512, 488)]]


def test_chunks_beside_decoding_follow_the_time_that_they_take() -> None:
    """Plain numbers: a decoding step takes 0.1 seconds, and each token of a prompt 0.003 more."""
    scheduler, _ = _scheduler(num_blocks=2000, budget=512)
    scheduler.add(_sequence(1, 3, max_tokens=1000))
    chunks, durations = [], []
    for step in range(100):
        if step == 5:
            scheduler.add(_sequence(2, 4000, max_tokens=1))
        batch = scheduler.schedule()
        chunks.append(batch.num_tokens - 1)
        durations.append(0.1 + 0.003 * chunks[-1])
        scheduler.observe(batch, seconds=durations[-1])
        scheduler.postprocess(batch, _run(batch))
    assert chunks[5] == 64
    assert max(durations[8:]) <= 0.21
    assert chunks.count(0) > 2  # now and then a step is left to decoding, to know what it takes
    assert sum(chunks[5:]) > 80 * 30


def test_random_requests_all_end_with_every_block_free() -> None:
    rng = random.Random(5)
    scheduler, blocks = _scheduler(num_blocks=40, max_num_seqs=6, budget=12)
    live: list[Sequence] = []
    done: list[Sequence] = []
    for request_id in range(300):
        live.append(_sequence(request_id, rng.randrange(1, 60), max_tokens=rng.randrange(1, 60)))
        scheduler.add(live[-1])
        for _ in range(rng.randrange(6)):
            batch = scheduler.schedule()
            assert batch.num_tokens <= 12
            done += [s for s in scheduler.postprocess(batch, _run(batch)) if s.finish_reason]
            scheduler.check_integrity()
            if not scheduler.has_work:
                break
        if rng.random() < 0.1 and live[0].status is not SequenceStatus.FINISHED:
            scheduler.remove(live.pop(0))
            scheduler.check_integrity()
        live = [sequence for sequence in live if sequence.status is not SequenceStatus.FINISHED]
    while scheduler.has_work:
        batch = scheduler.schedule()
        assert batch.items, "a step with work computes something"
        done += [s for s in scheduler.postprocess(batch, _run(batch)) if s.finish_reason]
    assert blocks.num_free_blocks == 40
    for sequence in done:
        assert sequence.token_ids[sequence.num_prompt_tokens :] == list(
            range(sequence.num_prompt_tokens, sequence.num_tokens)
        )
