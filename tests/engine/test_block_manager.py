"""Book-keeping of blocks: reuse, copies of partial blocks, eviction, and integrity under random operations."""

import random

import pytest

from server.engine.block_manager import BlockManager
from server.engine.sampling_params import SamplingParams
from server.engine.sequence import Sequence, cache_seed

SIZE = 4
PARAMS = SamplingParams(max_tokens=8)


def _sequence(
    request_id: int, prompt: list[int], *, num_virtual_tokens: int = 0, adapter: str | None = None, salt: bytes = b""
) -> Sequence:
    seed = cache_seed("model", adapter)
    return Sequence.create(
        request_id, prompt, PARAMS, cache_seed=seed, tenant_salt=salt, num_virtual_tokens=num_virtual_tokens
    )


def _compute(blocks: BlockManager, sequence: Sequence) -> None:
    """Pretend that a step computed everything that is not computed yet."""
    before = sequence.num_computed_tokens
    sequence.num_computed_tokens = sequence.num_tokens
    blocks.commit(sequence, computed_before=before)
    blocks.release_copy_sources()


def test_a_prefix_is_shared_while_it_is_held_and_after_it_is_freed() -> None:
    blocks = BlockManager(8, SIZE)
    first, second, third = (_sequence(i, [1, 2, 3, 4, 5, 6, 7, 8, 10 + i]) for i in range(3))
    assert blocks.admit(first) == []
    _compute(blocks, first)
    assert blocks.admit(second) == []
    assert (second.num_computed_tokens, second.block_table[:2]) == (8, first.block_table[:2])
    blocks.free(first)
    blocks.free(second)
    assert blocks.num_free_blocks == 8
    assert blocks.admit(third) == []
    assert third.num_computed_tokens == 8
    blocks.check_integrity([third])


def test_at_least_one_token_is_left_to_compute() -> None:
    blocks = BlockManager(8, SIZE)
    first, same = _sequence(0, [1, 2, 3, 4]), _sequence(1, [1, 2, 3, 4])
    blocks.admit(first)
    _compute(blocks, first)
    blocks.admit(same)
    assert same.num_computed_tokens == 0


def test_nothing_is_shared_between_adapters_nor_with_the_base() -> None:
    blocks = BlockManager(32, SIZE)
    prompt = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    sequences = [
        _sequence(0, prompt),
        _sequence(1, prompt, num_virtual_tokens=6, adapter="a" * 64),
        _sequence(2, prompt, num_virtual_tokens=6, adapter="b" * 64),
    ]
    for sequence in sequences:
        assert blocks.admit(sequence) == []
        assert sequence.num_computed_tokens == 0
        _compute(blocks, sequence)


def test_virtual_tokens_that_end_inside_a_block_are_copied_from_the_cache() -> None:
    blocks = BlockManager(16, SIZE)
    first = _sequence(0, [1, 2, 3], num_virtual_tokens=6, adapter="a")
    second = _sequence(1, [9, 8, 7, 6], num_virtual_tokens=6, adapter="a")
    blocks.admit(first)
    _compute(blocks, first)
    copies = blocks.admit(second)
    assert copies is not None
    [copy] = copies
    assert (copy.source, copy.target, copy.num_rows) == (first.block_table[1], second.block_table[1], 2)
    assert second.block_table[0] == first.block_table[0]
    assert second.num_computed_tokens == 6
    blocks.free(first)
    blocks.check_integrity([second])  # the source is still held for the copy
    blocks.release_copy_sources()
    blocks.check_integrity([second])


@pytest.mark.parametrize(("num_virtual_tokens", "shared"), [(0, 0), (3, 3), (4, 4), (6, 6), (8, 8)])
def test_tenants_share_virtual_tokens_and_nothing_behind_them(num_virtual_tokens: int, shared: int) -> None:
    """Also where the virtual tokens end inside a block: its copy holds only them."""
    blocks = BlockManager(64, SIZE)
    prompt = list(range(20))
    for number, (salt, found) in enumerate([(b"ann", 0), (b"bob", shared), (b"", shared)]):
        sequence = _sequence(number, prompt, num_virtual_tokens=num_virtual_tokens, adapter="a", salt=salt)
        blocks.admit(sequence)
        assert sequence.num_computed_tokens == found
        _compute(blocks, sequence)
    again = _sequence(9, prompt, num_virtual_tokens=num_virtual_tokens, adapter="a", salt=b"bob")
    blocks.admit(again)
    assert again.num_computed_tokens == (num_virtual_tokens + 20 - 1) // SIZE * SIZE


def test_admission_changes_nothing_when_there_is_no_room() -> None:
    blocks = BlockManager(4, SIZE)
    first = _sequence(0, list(range(12)))
    blocks.admit(first)
    _compute(blocks, first)
    too_long = _sequence(1, [*range(8), *range(50, 60)])
    assert blocks.admit(too_long) is None
    assert (too_long.block_table, blocks.num_free_blocks) == ([], 1)
    blocks.check_integrity([first])


def test_unknown_blocks_are_handed_out_before_the_least_recently_used_prefix() -> None:
    blocks = BlockManager(4, SIZE)
    old, new = _sequence(0, [1, 1, 1, 1, 1]), _sequence(1, [2, 2, 2, 2, 2])
    for sequence in (old, new):
        blocks.admit(sequence)
        _compute(blocks, sequence)
    blocks.free(old)
    blocks.free(new)
    blocks.admit(_sequence(2, [3] * 12))  # takes the two half-filled blocks, then the older prefix
    again = _sequence(3, [2, 2, 2, 2, 5])
    assert blocks.admit(again) is None  # only the newer prefix's block is free
    shorter = _sequence(4, [2, 2, 2, 2])
    assert blocks.admit(shorter) == []


def test_integrity_under_random_operations() -> None:
    rng = random.Random(3)
    blocks = BlockManager(24, SIZE)
    running: list[Sequence] = []
    adapters: list[tuple[int, str | None]] = [(0, None), (3, "a"), (6, "b"), (8, "c")]
    for request_id in range(5000):
        operation = rng.random()
        if operation < 0.4:
            num_virtual, adapter = rng.choice(adapters)
            prompt = [rng.randrange(2) for _ in range(rng.randrange(1, 20))]
            sequence = _sequence(request_id, prompt, num_virtual_tokens=num_virtual, adapter=adapter)
            if blocks.admit(sequence) is not None:
                running.append(sequence)
        elif running and operation < 0.7:
            sequence = rng.choice(running)
            if blocks.extend(sequence):
                _compute(blocks, sequence)
                sequence.append(rng.randrange(2))
                if not blocks.extend(sequence):
                    blocks.free(sequence)
                    running.remove(sequence)
        elif running:
            blocks.free(running.pop(rng.randrange(len(running))))
        if rng.random() < 0.5:
            blocks.release_copy_sources()
        blocks.check_integrity(running)
    for sequence in running:
        blocks.free(sequence)
    blocks.release_copy_sources()
    assert blocks.num_free_blocks == 24
