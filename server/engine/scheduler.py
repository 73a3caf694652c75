"""Which sequences compute how many tokens in the next step. Knows no tensors and no model.

Sequences join and leave the batch at every step. Decoding ones go first, a token each; what is left of the token budget
goes to prompts, in chunks, which are kept small while others decode. Half of it is the oldest prompt's, the other half
goes to the shortest ones, so that neither waits for the other. When no block is free, the youngest running sequence
gives its blocks back and waits again; it is computed anew from its tokens.
"""

import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from itertools import islice

from server.engine.adapter_load import AdapterLoad
from server.engine.batch import Batch, BlockCopy, ScheduledSequence, StepResult
from server.engine.block_manager import BlockManager
from server.engine.config import EngineConfig
from server.engine.errors import EngineOverloaded
from server.engine.outputs import Admission, FinishReason
from server.engine.pacing import PrefillPacer
from server.engine.sequence import Sequence, SequenceStatus

MAX_SCORED_TOKENS = 128
"""Prompt tokens of a step in which log-probabilities of prompts are wanted."""

logger = logging.getLogger(__name__)


class Scheduler:
    """Holds the waiting and the running sequences."""

    def __init__(
        self,
        config: EngineConfig,
        block_manager: BlockManager,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._config = config
        self._block_manager = block_manager
        self._clock = clock
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []  # oldest admission first
        self._pacer = PrefillPacer()
        self._num_prompts = 0  # at the last `schedule`: running ones, and waiting ones that have a place
        self.num_preemptions = 0
        self.num_virtual_tokens_computed = 0
        self.num_prefix_tokens_asked = 0
        self.num_prefix_tokens_found = 0
        self.adapter_load = AdapterLoad()

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence. Raises EngineOverloaded when all places, in the batch and in the queue, are taken."""
        num_places = self._config.max_num_requests
        if self.num_running + self.num_waiting >= num_places:
            raise EngineOverloaded.with_places_taken(num_places)
        self._waiting.append(sequence)
        self.adapter_load.come(sequence.adapter_digest)

    def renewed(self, block_manager: BlockManager) -> "Scheduler":
        """A scheduler without sequences, over empty books, that goes on counting where this one is."""
        renewed = Scheduler(self._config, block_manager)
        renewed.num_preemptions = self.num_preemptions
        renewed.num_virtual_tokens_computed = self.num_virtual_tokens_computed
        return renewed

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is, and give its blocks back."""
        if sequence.status is SequenceStatus.RUNNING:
            self._running.remove(sequence)
            self._block_manager.free(sequence)
            self.adapter_load.go(sequence.adapter_digest, was_running=True)
        elif sequence.status is SequenceStatus.WAITING:
            self._waiting.remove(sequence)
            self.adapter_load.go(sequence.adapter_digest, was_running=False)
        sequence.status = SequenceStatus.FINISHED

    def schedule(self) -> Batch:
        """The next step. It is never empty while there is work."""
        decodes = self._schedule_decodes()
        budget = self._config.max_num_batched_tokens - len(decodes)
        prompts = self._prompts()
        self._num_prompts = len(prompts)
        pace = self._pacer.num_tokens(len(prompts)) if decodes else budget
        prefills, copies = self._schedule_prefills(prompts, min(budget, pace, _most_prompt_tokens(prompts)))
        return Batch((*decodes, *prefills), tuple(copies))

    def observe(self, batch: Batch, *, seconds: float) -> None:
        """Learn how long a step took, to size the chunks of prompts."""
        num_decodes = sum(1 for item in batch.items if item.sequence.is_decoding)
        self._pacer.observe(
            seconds,
            num_decodes=num_decodes,
            num_prompts=self._num_prompts,
            num_prompt_tokens=batch.num_tokens - num_decodes,
        )

    def postprocess(self, batch: Batch, result: StepResult) -> list[Sequence]:
        """Enter what a step did: KV committed, tokens appended, ended sequences removed.

        Returns the sequences that got a token, ended or failed. A failed one has no finish reason.
        """
        self._block_manager.release_copy_sources()
        changed: list[Sequence] = []
        for item in batch.items:
            sequence = item.sequence
            if sequence.request_id in result.failures:
                self.remove(sequence)
                changed.append(sequence)
                continue
            sequence.note_computed(item.stop)
            self._block_manager.commit(sequence, computed_before=item.start)
            token = result.tokens.get(sequence.request_id)
            if token is not None:
                self._append(sequence, token)
                changed.append(sequence)
            elif not sequence.makes_tokens and sequence.num_uncomputed_tokens == 0:
                self._end_with_prompt(sequence)
                changed.append(sequence)
        return changed

    def check_integrity(self) -> None:
        """Raise AssertionError unless the queues and the block manager's books agree."""
        assert all(sequence.status is SequenceStatus.WAITING for sequence in self._waiting), "not waiting in the queue"
        assert all(sequence.status is SequenceStatus.RUNNING for sequence in self._running), "not running in the batch"
        assert not any(sequence.block_table for sequence in self._waiting), "a waiting sequence holds blocks"
        self.adapter_load.check_integrity(
            running=[sequence.adapter_digest for sequence in self._running],
            waiting=[sequence.adapter_digest for sequence in self._waiting],
        )
        self._block_manager.check_integrity(self._running)

    # -- private ----------------------------------------------------------------------------------------------------

    def _schedule_decodes(self) -> list[ScheduledSequence]:
        items = []
        for sequence in [sequence for sequence in self._running if sequence.is_decoding]:
            while sequence.status is SequenceStatus.RUNNING and not self._block_manager.extend(sequence):
                self._preempt_youngest()
            if sequence.status is SequenceStatus.RUNNING:
                items.append(ScheduledSequence(sequence, sequence.num_computed_tokens, 1))
        return items

    def _prompts(self) -> list[Sequence]:
        """Sequences with prompt tokens to compute, oldest first: running ones, and waiting ones that have a place."""
        num_places = self._config.max_num_seqs - len(self._running)
        prompts = [sequence for sequence in self._running if not sequence.is_decoding]
        return [*prompts, *islice(self._waiting, num_places)]

    def _schedule_prefills(
        self, prompts: list[Sequence], budget: int
    ) -> tuple[list[ScheduledSequence], list[BlockCopy]]:
        """Chunks of prompts within a budget of tokens, and the copies that newly admitted ones need.

        Where one finds no room in the cache, none is admitted after it: the room that comes free is its own.
        """
        num_tokens: dict[Sequence, int] = {}
        copies: list[BlockCopy] = []
        is_full = False
        for sequence, share in _prefill_shares(prompts, budget):
            if sequence.status is SequenceStatus.WAITING and budget > 0 and not is_full:
                admitted = self._admit(sequence)
                copies += admitted or []
                is_full = admitted is None
            if sequence.status is SequenceStatus.RUNNING:
                before = num_tokens.get(sequence, 0)
                chunk = min(sequence.num_uncomputed_tokens - before, share, budget)
                if chunk > 0:
                    num_tokens[sequence] = before + chunk
                    budget -= chunk
        return [ScheduledSequence(s, s.num_computed_tokens, n) for s, n in num_tokens.items()], copies

    def _admit(self, sequence: Sequence) -> list[BlockCopy] | None:
        """Move a waiting sequence into the batch; None when there is no room for it in the cache."""
        copies = self._block_manager.admit(sequence)
        if copies is None:
            return None
        self.num_virtual_tokens_computed += max(0, sequence.num_virtual_tokens - sequence.num_computed_tokens)
        if sequence.admission is None:  # later it finds what it computed itself
            num_found = max(0, sequence.num_computed_tokens - sequence.num_virtual_tokens)
            sequence.admission = Admission(self._clock(), num_found)
            self.num_prefix_tokens_asked += max(0, sequence.num_borrowing_tokens - sequence.num_virtual_tokens)
            self.num_prefix_tokens_found += num_found
        self._waiting.remove(sequence)
        self._running.append(sequence)
        self.adapter_load.begin(sequence.adapter_digest)
        sequence.status = SequenceStatus.RUNNING
        return copies

    def _end_with_prompt(self, sequence: Sequence) -> None:
        if sequence.is_pinned:
            self._pin(sequence)
        if sequence.params is not None:  # it was asked for no tokens
            sequence.finish_reason = FinishReason.LENGTH
        self.remove(sequence)

    def _pin(self, sequence: Sequence) -> None:
        """Hold its blocks for good, unless pins would take over half of the cache or what the longest request needs."""
        num_blocks = self._block_manager.num_blocks
        limit = min(num_blocks // 2, num_blocks - self._config.num_blocks_of_longest)
        if self._block_manager.num_pinned_blocks + len(sequence.block_table) <= limit:
            self._block_manager.pin(sequence)
        else:
            logger.warning("pinned adapters fill their part of the KV cache: one more is kept only while it is used")

    def _preempt_youngest(self) -> None:
        sequence = self._running.pop()
        self._block_manager.free(sequence)
        sequence.status = SequenceStatus.WAITING
        sequence.num_preemptions += 1
        self._waiting.appendleft(sequence)
        self.adapter_load.wait_again(sequence.adapter_digest)
        self.num_preemptions += 1

    def _append(self, sequence: Sequence, token: int) -> None:
        params = sequence.params
        assert params is not None, "a sequence without sampling params does not sample"
        if token in params.stop_token_ids:
            sequence.finish_reason = FinishReason.STOP
        else:
            sequence.append(token)
            if sequence.num_output_tokens >= params.max_tokens:
                sequence.finish_reason = FinishReason.LENGTH
        if sequence.finish_reason is not None:
            self.remove(sequence)


def _most_prompt_tokens(prompts: list[Sequence]) -> int:
    """A bound on the logits of a step, `[tokens, vocab_size]`, where a prompt wants those of each of its tokens."""
    return MAX_SCORED_TOKENS if any(sequence.is_scoring for sequence in prompts) else sys.maxsize


def _prefill_shares(prompts: list[Sequence], budget: int) -> list[tuple[Sequence, int]]:
    """Who may take how many tokens, in turn: the oldest half, the others all, and the oldest what they leave."""
    if not prompts:
        return []
    oldest, *others = prompts
    others.sort(key=lambda sequence: (sequence.num_preemptions == 0, sequence.num_uncomputed_tokens))
    return [(oldest, -(-budget // 2)), *((other, budget) for other in others), (oldest, budget)]
