"""A KV cache on paper: a slot holds what its KV would depend on, so that a wrong reuse is seen. Holds no tensors."""

from array import array
from collections.abc import Iterable

from server.engine.batch import Batch, BlockCopy
from server.engine.sequence import Sequence


class PaperCache:
    """Slot `block * block_size + offset` holds a hash of everything before and at one position of a sequence."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self._block_size = block_size
        self._slots = array("q", bytes(8 * num_blocks * block_size))
        self._chains: dict[Sequence, list[int]] = {}

    def copy(self, copies: Iterable[BlockCopy]) -> None:
        for copy in copies:
            source, target = copy.source * self._block_size, copy.target * self._block_size
            self._slots[target : target + copy.num_rows] = self._slots[source : source + copy.num_rows]

    def run(self, batch: Batch) -> None:
        """What a step does to the cache."""
        self.copy(batch.copies)
        for item in batch.items:
            self.compute(item.sequence, item.start, item.stop)

    def compute(self, sequence: Sequence, start: int, stop: int) -> None:
        """Write positions [start, stop), after reading all before: each must hold what this very sequence needs."""
        chain = self._chain(sequence)
        size, slots = self._block_size, self._slots
        position = 0
        for block in sequence.block_table:
            first = block * size
            for offset in range(min(size, stop - position)):
                if position < start:
                    assert slots[first + offset] == chain[position], f"position {position} holds another's KV"
                else:
                    slots[first + offset] = chain[position]
                position += 1
        assert position == stop, "a position without a slot"

    def forget(self, sequence: Sequence) -> None:
        """To be called when a sequence has ended."""
        self._chains.pop(sequence, None)

    def _chain(self, sequence: Sequence) -> list[int]:
        """By position, a hash of model, adapter, tenant (from the first real token on) and all tokens up to there."""
        chain = self._chains.setdefault(sequence, [])
        for position in range(len(chain), sequence.num_tokens):
            parent = chain[-1] if chain else hash(sequence.cache_seed)
            tenant = sequence.tenant_salt if position >= sequence.num_virtual_tokens else None
            chain.append(hash((parent, tenant, sequence.token_ids[position])))
        return chain
