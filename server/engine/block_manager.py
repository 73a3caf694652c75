"""Book-keeping of the KV cache's blocks: who holds which, and which prefixes can be reused. Knows no tensors.

A block is free (nobody holds it) or held by one or more sequences, or by a pin. Either way its content may be known by
a key: a free block with keys is reused until it is handed out again, least recently freed first.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from server.engine.batch import BlockCopy
from server.engine.sequence import Sequence


@dataclass(slots=True)
class _Block:
    ref_count: int = 0
    keys: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _CachedPrefix:
    """Full blocks that hold a sequence's first tokens, and a block that begins with the rest of its virtual tokens."""

    blocks: tuple[int, ...]
    tail_block: int | None
    num_tokens: int


class BlockManager:
    """Hands out `num_blocks` blocks of `block_size` tokens each."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._blocks = [_Block() for _ in range(num_blocks)]
        self._free: OrderedDict[int, None] = OrderedDict((i, None) for i in range(num_blocks))  # next to hand out first
        self._by_key: dict[bytes, int] = {}
        self._copy_sources: list[int] = []  # held until the step that copies from them has run
        self._pins: dict[bytes, list[int]] = {}  # by cache seed, the blocks of virtual tokens that are held for good
        self.num_pinned_blocks = 0

    @property
    def num_free_blocks(self) -> int:
        return len(self._free)

    def admit(self, sequence: Sequence) -> list[BlockCopy] | None:
        """Give a sequence blocks for all its tokens, the cached prefix among them.

        None, with nothing changed, when there are not enough. Sets `block_table` and `num_computed_tokens`. The copies
        must run before the sequence's next step.
        """
        prefix = self._cached_prefix(sequence)
        shared = [*prefix.blocks, *([] if prefix.tail_block is None else [prefix.tail_block])]
        num_new = self._blocks_for(sequence.num_tokens) - len(prefix.blocks)
        num_revived = sum(1 for block in shared if self._blocks[block].ref_count == 0)
        if num_new + num_revived > self.num_free_blocks:
            return None
        for block in shared:
            self._hold(block)
        sequence.block_table = [*prefix.blocks, *(self._take() for _ in range(num_new))]
        sequence.num_computed_tokens = prefix.num_tokens
        if prefix.tail_block is None:
            return []
        self._copy_sources.append(prefix.tail_block)
        first_row = len(prefix.blocks) * self.block_size
        return [BlockCopy(prefix.tail_block, sequence.block_table[len(prefix.blocks)], prefix.num_tokens - first_row)]

    def extend(self, sequence: Sequence) -> bool:
        """Give a running sequence a block for its newest token where it needs one; False when none is free."""
        if self._blocks_for(sequence.num_tokens) <= len(sequence.block_table):
            return True
        if not self._free:
            return False
        sequence.block_table.append(self._take())
        return True

    def commit(self, sequence: Sequence, *, computed_before: int) -> None:
        """Make the blocks filled since `computed_before` known by their keys, so that others reuse what is shared."""
        size = self.block_size
        num_shared = min(sequence.num_computed_tokens, sequence.num_shared_tokens)
        for index in range(computed_before // size, num_shared // size):
            self._remember(sequence.block_key(index, size), sequence.block_table[index])
        if computed_before < sequence.num_virtual_tokens <= sequence.num_computed_tokens:
            tail_key = sequence.virtual_tail_key(size)
            if tail_key is not None:
                self._remember(tail_key, sequence.block_table[sequence.num_virtual_tokens // size])

    def free(self, sequence: Sequence) -> None:
        """Take a sequence's blocks back. Its last block is handed out first: a prefix is worth more than its end."""
        for block in reversed(sequence.block_table):
            self._release(block)
        sequence.block_table = []
        sequence.num_computed_tokens = 0

    def pin(self, sequence: Sequence) -> None:
        """Hold the blocks of a sequence of virtual tokens alone, all computed, until `unpin`; twice is as once."""
        if sequence.cache_seed in self._pins:
            return
        for index, block in enumerate(sequence.block_table):
            self._hold(block)
            if (index + 1) * self.block_size <= sequence.num_virtual_tokens:
                self._claim(sequence.block_key(index, self.block_size), block)
        tail_key = sequence.virtual_tail_key(self.block_size)
        if tail_key is not None:
            self._claim(tail_key, sequence.block_table[-1])
        self._pins[sequence.cache_seed] = list(sequence.block_table)
        self.num_pinned_blocks += len(sequence.block_table)

    def unpin(self, cache_seed: bytes) -> None:
        """Let the blocks of a pin go their way, if there is one."""
        blocks = self._pins.pop(cache_seed, [])
        self.num_pinned_blocks -= len(blocks)
        for block in reversed(blocks):
            self._release(block)

    def release_copy_sources(self) -> None:
        """To be called when a step has run: what it copied from need not be held any more."""
        for block in self._copy_sources:
            self._release(block)
        self._copy_sources = []

    def check_integrity(self, sequences: "list[Sequence]") -> None:
        """Raise AssertionError unless the books agree with each other and with the sequences that hold blocks."""
        tables = [sequence.block_table for sequence in sequences]
        held = [0] * self.num_blocks
        for table in (*tables, self._copy_sources, *self._pins.values()):
            for held_block in table:
                held[held_block] += 1
        num_keys = num_free = 0
        for index, block in enumerate(self._blocks):
            num_held = held[index]
            assert block.ref_count == num_held, f"block {index}: {block.ref_count} references, {num_held} holders"
            assert (index in self._free) == (num_held == 0), f"block {index}: free and held, or neither"
            num_free += num_held == 0
            for key in block.keys:
                num_keys += 1
                assert self._by_key[key] == index, f"block {index}: a key leads elsewhere"
        assert len(self._by_key) == num_keys, "a key leads to no block"
        assert len(self._free) == num_free, "a free block that there is not"
        assert self.num_pinned_blocks == sum(map(len, self._pins.values())), "pinned blocks are miscounted"
        for sequence, table in zip(sequences, tables, strict=True):
            assert len(set(table)) == len(table), "a sequence holds a block twice"
            assert sequence.num_computed_tokens <= len(table) * self.block_size, "KV outside the blocks"

    # -- private ----------------------------------------------------------------------------------------------------

    def _cached_prefix(self, sequence: Sequence) -> _CachedPrefix:
        """The longest known prefix that is shared and leaves at least one token to compute (its logits are needed)."""
        size, usable = self.block_size, min(sequence.num_tokens - 1, sequence.num_borrowing_tokens)
        blocks: list[int] = []
        while (len(blocks) + 1) * size <= usable:
            block = self._by_key.get(sequence.block_key(len(blocks), size))
            if block is None:
                break
            blocks.append(block)
        num_tokens = len(blocks) * size
        if len(blocks) == sequence.num_virtual_tokens // size and sequence.num_virtual_tokens <= usable:
            tail_key = sequence.virtual_tail_key(size)
            tail_block = self._by_key.get(tail_key) if tail_key is not None else None
            if tail_block is not None:
                return _CachedPrefix(tuple(blocks), tail_block, sequence.num_virtual_tokens)
        return _CachedPrefix(tuple(blocks), None, num_tokens)

    def _blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def _take(self) -> int:
        index, _ = self._free.popitem(last=False)
        block = self._blocks[index]
        for key in block.keys:
            del self._by_key[key]
        block.keys = []
        block.ref_count = 1
        return index

    def _hold(self, index: int) -> None:
        self._free.pop(index, None)
        self._blocks[index].ref_count += 1

    def _release(self, index: int) -> None:
        block = self._blocks[index]
        block.ref_count -= 1
        if block.ref_count == 0:
            self._free[index] = None
            if not block.keys:  # nothing to reuse: hand it out before blocks that can be
                self._free.move_to_end(index, last=False)

    def _claim(self, key: bytes, index: int) -> None:
        """Make a key lead to this block, whichever other block holds the same content."""
        other = self._by_key.pop(key, None)
        if other is not None:
            self._blocks[other].keys.remove(key)
        self._remember(key, index)

    def _remember(self, key: bytes, index: int) -> None:
        if key not in self._by_key:  # otherwise another block holds the same content already
            self._by_key[key] = index
            self._blocks[index].keys.append(key)
