"""The books of the KV cache under random operations, checked after each, and the cache's content with them."""

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.engine.batch import Batch, BlockCopy, StepResult
from server.engine.block_manager import BlockManager
from server.engine.config import EngineConfig
from server.engine.errors import EngineOverloaded, SequenceFailed
from server.engine.sampling_params import SamplingParams
from server.engine.scheduler import Scheduler
from server.engine.sequence import Sequence, SequenceStatus, cache_seed
from tests.engine.paper_cache import PaperCache

SIZE = 4
NUM_BLOCKS = 16
PARAMS = SamplingParams(max_tokens=8)
ADAPTERS: tuple[tuple[int, str | None], ...] = ((0, None), (3, "a"), (6, "b"), (8, "c"))
TENANTS = (b"", b"ann")


class Books:
    """A block manager with its cache on paper, and who is admitted, waiting for a second time, or ended."""

    def __init__(self) -> None:
        self.blocks = BlockManager(NUM_BLOCKS, SIZE)
        self.cache = PaperCache(NUM_BLOCKS, SIZE)
        self.running: list[Sequence] = []
        self.preempted: list[Sequence] = []
        self._copies: list[BlockCopy] = []
        self._num_made = 0

    def check(self) -> None:
        self.blocks.check_integrity(self.running)

    def create(self, prompt: list[int], adapter: int, tenant: int, *, is_pinned: bool = False) -> Sequence:
        num_virtual, digest = ADAPTERS[adapter]
        self._num_made += 1
        return Sequence.create(
            self._num_made,
            prompt,
            None if is_pinned else PARAMS,
            cache_seed=cache_seed("model", digest),
            tenant_salt=TENANTS[tenant],
            num_virtual_tokens=num_virtual,
            is_pinned=is_pinned,
        )

    def admit(self, sequence: Sequence) -> bool:
        copies = self.blocks.admit(sequence)
        if copies is None:
            assert sequence.block_table == []
            return False
        assert sequence.num_computed_tokens < sequence.num_tokens
        self._copies += copies
        self.running.append(sequence)
        return True

    def step(self, sequence: Sequence, num_tokens: int, *, fails: bool = False) -> None:
        """Compute some of a sequence's tokens; one that fails has written them, and is not committed."""
        self.cache.copy(self._copies)
        start = sequence.num_computed_tokens
        stop = min(start + num_tokens, sequence.num_tokens)
        self.cache.compute(sequence, start, stop)
        self._copies = []
        self.blocks.release_copy_sources()
        if fails:
            self.end(sequence)
            return
        sequence.note_computed(stop)
        self.blocks.commit(sequence, computed_before=start)

    def decode(self, sequence: Sequence, token: int) -> None:
        """A step up to the last token, and the next token; without a block for it the sequence is preempted."""
        self.step(sequence, sequence.num_uncomputed_tokens)
        if sequence.num_tokens >= 30:
            self.end(sequence)
            return
        sequence.append(token)
        if not self.blocks.extend(sequence):
            self.preempt(sequence)

    def preempt(self, sequence: Sequence) -> None:
        self.blocks.free(sequence)
        self.running.remove(sequence)
        self.preempted.append(sequence)

    def end(self, sequence: Sequence) -> None:
        self.blocks.free(sequence)
        self.running.remove(sequence)
        self.cache.forget(sequence)

    def pin(self, adapter: int) -> None:
        sequence = self.create([], adapter, 0, is_pinned=True)
        if self.blocks.num_pinned_blocks < NUM_BLOCKS // 4 and self.admit(sequence):
            self.step(sequence, sequence.num_tokens)
            self.blocks.pin(sequence)
            self.end(sequence)

    def unpin(self, adapter: int) -> None:
        self.blocks.unpin(cache_seed("model", ADAPTERS[adapter][1]))

    def end_all(self) -> None:
        for sequence in list(self.running):
            self.end(sequence)
        for adapter in range(len(ADAPTERS)):
            self.unpin(adapter)
        self.blocks.release_copy_sources()
        assert self.blocks.num_free_blocks == NUM_BLOCKS


def _operate(books: Books, rng: random.Random) -> str:
    """One random operation; few token ids, so that prefixes are often the same."""
    kind, running = rng.random(), books.running
    if kind < 0.02:
        books.pin(rng.randrange(1, len(ADAPTERS)))
        return "pin"
    if kind < 0.04:
        books.unpin(rng.randrange(1, len(ADAPTERS)))
        return "unpin"
    if kind < 0.2 and books.preempted:
        if books.admit(books.preempted[0]):
            books.preempted.pop(0)
            return "readmit"
        return "no room"
    if kind < 0.3 or not running:
        prompt = [rng.randrange(2) for _ in range(rng.randrange(1, 16))]
        admitted = books.admit(books.create(prompt, rng.randrange(len(ADAPTERS)), rng.randrange(len(TENANTS))))
        return "admit" if admitted else "no room"
    sequence = rng.choice(running)
    if kind < 0.7:
        books.decode(sequence, rng.randrange(2))
        return "decode"
    if kind < 0.84:
        books.step(sequence, rng.randrange(1, 6))
        return "chunk"
    if kind < 0.88:
        books.step(sequence, sequence.num_tokens, fails=True)
        return "fail"
    if kind < 0.93 and len(books.preempted) < 4:
        books.preempt(sequence)
        return "preempt"
    books.end(sequence)
    return "end"


def _operate_many(num_operations: int) -> None:
    rng = random.Random(11)
    books = Books()
    done: dict[str, int] = {}
    for _ in range(num_operations):
        kind = _operate(books, rng)
        done[kind] = done.get(kind, 0) + 1
        books.check()
    books.end_all()
    assert len(done) == 10, done
    assert min(done.values()) > num_operations // 200, done


def test_ten_thousand_random_operations() -> None:
    _operate_many(10_000)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_million_random_operations() -> None:
    _operate_many(1_000_000)


class BooksMachine(RuleBasedStateMachine):
    """The same operations, chosen by hypothesis, which shrinks what fails."""

    def __init__(self) -> None:
        super().__init__()
        self.books = Books()

    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=16),
        adapter=st.integers(0, len(ADAPTERS) - 1),
        tenant=st.integers(0, len(TENANTS) - 1),
    )
    def admit(self, prompt: list[int], adapter: int, tenant: int) -> None:
        self.books.admit(self.books.create(prompt, adapter, tenant))

    @precondition(lambda self: self.books.preempted)
    @rule()
    def readmit(self) -> None:
        if self.books.admit(self.books.preempted[0]):
            self.books.preempted.pop(0)

    @precondition(lambda self: self.books.running)
    @rule(data=st.data(), token=st.integers(0, 1))
    def decode(self, data: st.DataObject, token: int) -> None:
        self.books.decode(data.draw(st.sampled_from(self.books.running)), token)

    @precondition(lambda self: self.books.running)
    @rule(data=st.data(), num_tokens=st.integers(1, 8), fails=st.booleans())
    def step(self, data: st.DataObject, num_tokens: int, fails: bool) -> None:  # noqa: FBT001
        self.books.step(data.draw(st.sampled_from(self.books.running)), num_tokens, fails=fails)

    @precondition(lambda self: self.books.running)
    @rule(data=st.data(), preempts=st.booleans())
    def leave(self, data: st.DataObject, preempts: bool) -> None:  # noqa: FBT001
        sequence = data.draw(st.sampled_from(self.books.running))
        (self.books.preempt if preempts else self.books.end)(sequence)

    @rule(adapter=st.integers(1, len(ADAPTERS) - 1), pins=st.booleans())
    def change_pin(self, adapter: int, pins: bool) -> None:  # noqa: FBT001
        (self.books.pin if pins else self.books.unpin)(adapter)

    @invariant()
    def books_agree(self) -> None:
        self.books.check()

    def teardown(self) -> None:
        self.books.end_all()


TestBooksMachine = BooksMachine.TestCase
TestBooksMachine.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def _run(batch: Batch, cache: PaperCache, rng: random.Random) -> StepResult:
    """A step on paper; now and then it runs in halves, as where the one to blame is looked for, and sequences fail."""
    for part in batch.halves() if rng.random() < 0.2 else (batch,):
        cache.run(part)
    failed = {item.sequence.request_id for item in batch.items if rng.random() < 0.01}
    sampling = [item.sequence.request_id for item in batch.items if item.samples]
    return StepResult(
        tokens={request_id: rng.randrange(3) for request_id in sampling if request_id not in failed},
        failures={request_id: SequenceFailed("bad luck") for request_id in failed},
    )


def _random_sequence(number: int, rng: random.Random) -> Sequence:
    num_virtual, digest = rng.choice(ADAPTERS)
    is_pinned = num_virtual > 0 and rng.random() < 0.05
    params = SamplingParams(
        max_tokens=rng.randrange(30),
        stop_token_ids=frozenset({2} if number % 2 else ()),
        num_prompt_logprobs=rng.choice((None, None, 1)),
    )
    return Sequence.create(
        number,
        [] if is_pinned else [rng.randrange(2) for _ in range(rng.randrange(1, 40))],
        None if is_pinned else params,
        cache_seed=cache_seed("model", digest),
        tenant_salt=rng.choice(TENANTS),
        num_virtual_tokens=num_virtual,
        is_pinned=is_pinned,
    )


def _require_scored_once(sequence: Sequence, positions: list[int]) -> None:
    """Of a sequence that came to its end, every token of the prompt but the first, and each once."""
    if sequence.params is not None and sequence.params.num_prompt_logprobs is not None and sequence.finish_reason:
        assert positions == list(range(sequence.num_virtual_tokens, sequence.num_prompt_tokens - 1))


def _schedule_many(num_steps: int) -> None:
    """Random arrivals, aborts, failures and unpins; every request ends, and every block comes back."""
    rng = random.Random(13)
    blocks, cache = BlockManager(40, SIZE), PaperCache(40, SIZE)
    config = EngineConfig(
        max_model_len=80, max_num_seqs=6, max_num_batched_tokens=24, max_num_waiting=6, block_size=SIZE
    )
    scheduler = Scheduler(config, blocks)
    live: dict[int, Sequence] = {}
    scored: dict[int, list[int]] = {}
    num_refused = number = 0

    def step() -> None:
        batch = scheduler.schedule()
        assert batch.items, "a step with work computes something"
        assert batch.num_tokens <= config.max_num_batched_tokens
        assert len({item.sequence for item in batch.items}) == len(batch.items)
        scheduler.observe(batch, seconds=rng.random())
        positions = [(item.sequence.request_id, item.scored) for item in batch.items]
        result = _run(batch, cache, rng)
        scheduler.postprocess(batch, result)
        for request_id, some in positions:
            if request_id not in result.failures:
                scored.setdefault(request_id, []).extend(some)
        scheduler.check_integrity()

    for _ in range(num_steps):
        for _ in range(rng.choice((0, 0, 0, 1, 2))):
            number += 1
            sequence = _random_sequence(number, rng)
            try:
                scheduler.add(sequence)
                live[number] = sequence
            except EngineOverloaded:
                num_refused += 1
        if live and rng.random() < 0.05:
            scheduler.remove(live[rng.choice(list(live))])
        if rng.random() < 0.02:
            blocks.unpin(cache_seed("model", rng.choice(ADAPTERS)[1]))
        if scheduler.has_work:
            step()
        for request_id in [i for i, sequence in live.items() if sequence.status is SequenceStatus.FINISHED]:
            _require_scored_once(live[request_id], scored.pop(request_id, []))
            cache.forget(live.pop(request_id))
    while scheduler.has_work:
        step()
    for _, digest in ADAPTERS:
        blocks.unpin(cache_seed("model", digest))
    assert blocks.num_free_blocks == 40
    assert num_refused > 0
    assert scheduler.num_preemptions > 0


def test_two_thousand_random_steps() -> None:
    _schedule_many(2000)


@pytest.mark.slow
def test_a_hundred_thousand_random_steps() -> None:
    _schedule_many(100_000)
