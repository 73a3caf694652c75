"""The synchronous engine: requests in, a step at a time, tokens out. Knows no threads, no text, no adapter names."""

import time
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from adapters.injections import Injection, SoftPrompt
from server.engine.adapter_load import AdaptersAtWork
from server.engine.batch import Batch, StepResult
from server.engine.block_manager import BlockManager
from server.engine.config import EngineConfig
from server.engine.constraint import TokenConstraint, failing_alone
from server.engine.errors import LogitBiasInvalid, PromptInvalid, PromptTooLong, SequenceFailed
from server.engine.isolation import run_isolated
from server.engine.outputs import Admission, EngineStats, FinishReason, PromptLogprobs, TokenLogprobs
from server.engine.pooling import MeanPool
from server.engine.sampling_params import SamplingParams
from server.engine.scheduler import Scheduler
from server.engine.sequence import Sequence, SequenceStatus, cache_seed


@dataclass(frozen=True, slots=True)
class SequenceOutput:
    """What one step did to one sequence. Finished is ended (a reason), failed (an error) or prefilled (neither)."""

    request_id: int
    token_id: int | None
    finish_reason: FinishReason | None
    error: SequenceFailed | None
    is_finished: bool
    admission: Admission | None
    logprobs: TokenLogprobs | None
    """Of the token, where they were asked for."""
    mean_hidden: NDArray[np.float32] | None = None
    """`[hidden_size]`, of a pooled sequence that has ended: the mean of its real tokens' last hidden states."""
    prompt_logprobs: PromptLogprobs | None = None
    """Once, when the prompt is computed, where they were asked for: of all its tokens but the first."""

    @property
    def num_cached_tokens(self) -> int:
        return 0 if self.admission is None else self.admission.num_cached_tokens


class Runner(Protocol):
    """What computes a batch."""

    def run(
        self, batch: Batch, injections: Mapping[int, Injection], constraints: Mapping[int, TokenConstraint]
    ) -> StepResult:
        """See `ModelRunner.run`, the one that there is."""

    def require_fit(self, injection: Injection) -> None:
        """See `ModelRunner.require_fit`; any thread may ask."""


class Engine:
    """Continuous batching over one model: requests join and leave between any two steps."""

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        block_manager: BlockManager,
        config: EngineConfig,
        *,
        fingerprint: str,
        vocab_size: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.config = config
        self._runner = runner
        self._scheduler = scheduler
        self._block_manager = block_manager
        self._fingerprint = fingerprint
        self.vocab_size = vocab_size
        self._clock = clock
        self._sequences: dict[int, Sequence] = {}
        self._injections: dict[int, Injection] = {}
        self._constraints: dict[int, TokenConstraint] = {}
        self._pools: dict[int, MeanPool] = {}
        self._scores: dict[int, list[PromptLogprobs]] = {}  # step by step, until they are told
        self._num_accepted = self._num_finished = self._num_failed = self._num_aborted = 0

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work

    def require_fit(self, injection: Injection) -> None:
        """See `ModelRunner.require_fit`; any thread may ask."""
        self._runner.require_fit(injection)

    def check_request(
        self,
        prompt_ids: Tokens[int],
        params: SamplingParams | None,
        injection: Injection | None,
        *,
        is_pooled: bool = False,
    ) -> None:
        """Raise what `add_request` would for the request itself: PromptInvalid, LogitBiasInvalid, PromptTooLong,
        InjectionUnfit.
        """
        num_virtual = injection.num_virtual_tokens if injection else 0
        num_output = params.max_tokens if params else 0
        total = num_virtual + len(prompt_ids) + num_output
        if not prompt_ids and (is_pooled or not _is_begun_by(injection, samples=params is not None)):
            raise PromptInvalid("the prompt is empty")
        if any(not 0 <= token < self.vocab_size for token in prompt_ids):
            raise PromptInvalid(f"the prompt has token ids outside 0 to {self.vocab_size - 1}")
        if params and any(token >= self.vocab_size for token, _ in params.logit_bias):
            raise LogitBiasInvalid(f"logit_bias has token ids outside 0 to {self.vocab_size - 1}")
        if total > self.config.max_model_len:
            virtual = f"{num_virtual} virtual tokens + " if num_virtual else ""
            raise PromptTooLong(
                f"{virtual}{len(prompt_ids)} prompt tokens + {num_output} answer tokens are over the limit of "
                f"{self.config.max_model_len} tokens"
            )
        if injection is not None:
            self._runner.require_fit(injection)

    def add_request(
        self,
        request_id: int,
        prompt_ids: Tokens[int],
        params: SamplingParams | None,
        injection: Injection | None = None,
        *,
        tenant_salt: bytes = b"",
        is_pinned: bool = False,
        constraint: TokenConstraint | None = None,
        is_pooled: bool = False,
    ) -> None:
        """Queue a request; with params None, only compute its KV and leave it in the prefix cache.

        `is_pinned`, for virtual tokens alone: that KV stays there until `unpin`, while there is room for pins.
        `is_pooled`, with params None: its last output has the mean of its real tokens' last hidden states, and only the
        KV of its virtual tokens is taken from the cache and left there.
        Requests of different `tenant_salt` find nothing of each other's prompts in the prefix cache.
        `constraint`, which is this request's own, says at each step which tokens may come next.
        Raises PromptInvalid, LogitBiasInvalid, PromptTooLong, InjectionUnfit, EngineOverloaded.
        """
        self.check_request(prompt_ids, params, injection, is_pooled=is_pooled)
        sequence = Sequence.create(
            request_id,
            list(prompt_ids),
            params,
            cache_seed=cache_seed(self._fingerprint, injection.digest if injection else None),
            tenant_salt=tenant_salt,
            num_virtual_tokens=injection.num_virtual_tokens if injection else 0,
            is_pinned=is_pinned,
            is_pooled=is_pooled,
            adapter_digest=injection.digest if injection else None,
        )
        self._scheduler.add(sequence)
        self._sequences[request_id] = sequence
        self._num_accepted += 1
        if injection is not None:
            self._injections[request_id] = injection
        if constraint is not None:
            self._constraints[request_id] = constraint
        if is_pooled:
            self._pools[request_id] = MeanPool(sequence.num_virtual_tokens)
        if params is not None and params.num_prompt_logprobs is not None:
            self._scores[request_id] = []

    def abort(self, request_id: int) -> None:
        """Take a request out of the batch and free its blocks. A request that has ended already is left alone."""
        sequence = self._sequences.get(request_id)
        if sequence is not None:
            self._scheduler.remove(sequence)
            self._forget(request_id)
            self._num_aborted += 1

    def unpin(self, digest: str) -> None:
        """Let the KV of a soft prompt leave the cache like any other, if it was pinned."""
        self._block_manager.unpin(cache_seed(self._fingerprint, digest))

    def step(self) -> list[SequenceOutput]:
        """Compute one batch. Returns what changed; a sequence that fails is reported, its neighbours go on."""
        batch = self._scheduler.schedule()
        started = self._clock()
        result = run_isolated(self._run, batch)
        self._gather(batch, result)
        if not result.failures:  # to find out who is to blame takes several tries
            self._scheduler.observe(batch, seconds=self._clock() - started)
        result = self._accepted(result)
        changed = self._scheduler.postprocess(batch, result)
        return self._outputs(changed, result)

    def start_anew(self) -> None:
        """After `step` raised: forget every request and the whole prefix cache, pins too. What was there has failed.

        The cache's memory stays; what lies in it is found by nobody.
        """
        self._block_manager = BlockManager(self._block_manager.num_blocks, self._block_manager.block_size)
        self._scheduler = self._scheduler.renewed(self._block_manager)
        for table in (self._sequences, self._injections, self._constraints, self._pools, self._scores):
            table.clear()
        self._num_failed = self._num_accepted - self._num_finished - self._num_aborted
        self.check_integrity()

    def stats(self) -> EngineStats:
        """A snapshot of the load."""
        return EngineStats(
            num_running=self._scheduler.num_running,
            num_waiting=self._scheduler.num_waiting,
            num_free_blocks=self._block_manager.num_free_blocks,
            num_blocks=self._block_manager.num_blocks,
            num_pinned_blocks=self._block_manager.num_pinned_blocks,
            num_accepted=self._num_accepted,
            num_finished=self._num_finished,
            num_failed=self._num_failed,
            num_aborted=self._num_aborted,
            num_preemptions=self._scheduler.num_preemptions,
            num_virtual_tokens_computed=self._scheduler.num_virtual_tokens_computed,
            num_prefix_tokens_asked=self._scheduler.num_prefix_tokens_asked,
            num_prefix_tokens_found=self._scheduler.num_prefix_tokens_found,
            block_size=self._block_manager.block_size,
        )

    def adapters_at_work(self) -> AdaptersAtWork:
        """Which adapters sequences run with and wait for; any thread may ask."""
        return self._scheduler.adapter_load.snapshot()

    def check_integrity(self) -> None:
        """Raise AssertionError unless scheduler, block manager and the request tables agree."""
        self._scheduler.check_integrity()
        assert len(self._sequences) == self._scheduler.num_running + self._scheduler.num_waiting, "a request is lost"
        assert self._injections.keys() <= self._sequences.keys(), "an injection outlives its request"
        assert self._constraints.keys() <= self._sequences.keys(), "a constraint outlives its request"
        assert self._pools.keys() <= self._sequences.keys(), "a pool outlives its request"
        assert self._scores.keys() <= self._sequences.keys(), "log-probabilities outlive their request"

    def _run(self, batch: Batch) -> StepResult:
        return self._runner.run(batch, self._injections, self._constraints)

    def _accepted(self, result: StepResult) -> StepResult:
        """The step after constraints were told of their tokens, once for each; one that cannot take it fails."""
        failures: dict[int, Exception] = {}
        for request_id, constraint in self._constraints.items():
            token_id = result.tokens.get(request_id)
            if token_id is not None:
                try:
                    with failing_alone():
                        constraint.accept(token_id)
                except SequenceFailed as error:
                    failures[request_id] = error
        if not failures:
            return result
        tokens = {request_id: token for request_id, token in result.tokens.items() if request_id not in failures}
        return replace(result, tokens=tokens, failures=result.failures | failures)

    def _gather(self, batch: Batch, result: StepResult) -> None:
        """Keep what a prompt gives step by step, and is told of whole."""
        for item in batch.items:
            sums = result.hidden_sums.get(item.sequence.request_id)
            if sums is not None:
                self._pools[item.sequence.request_id].add(sums, start=item.start, stop=item.stop)
        for request_id, scores in result.prompt_logprobs.items():
            self._scores[request_id].append(scores)

    def _outputs(self, changed: Iterable[Sequence], result: StepResult) -> list[SequenceOutput]:
        outputs = []
        for sequence in changed:
            request_id = sequence.request_id
            is_finished = sequence.status is SequenceStatus.FINISHED
            has_token = sequence.finish_reason is not FinishReason.STOP and request_id in result.tokens
            outputs.append(
                SequenceOutput(
                    request_id=request_id,
                    token_id=result.tokens[request_id] if has_token else None,
                    finish_reason=sequence.finish_reason,
                    error=_failure(result.failures.get(request_id)),
                    is_finished=is_finished,
                    admission=sequence.admission,
                    logprobs=result.logprobs.get(request_id) if has_token else None,
                    mean_hidden=self._mean_hidden(request_id, result) if is_finished else None,
                    prompt_logprobs=self._prompt_logprobs(request_id, result),
                )
            )
            if is_finished:
                self._forget(request_id)
                self._num_failed += request_id in result.failures
                self._num_finished += request_id not in result.failures
        return outputs

    def _mean_hidden(self, request_id: int, result: StepResult) -> NDArray[np.float32] | None:
        pool = self._pools.get(request_id)
        return None if pool is None or request_id in result.failures else pool.mean()

    def _prompt_logprobs(self, request_id: int, result: StepResult) -> PromptLogprobs | None:
        chunks = self._scores.pop(request_id, None)  # what changes has its prompt behind it
        return None if chunks is None or request_id in result.failures else PromptLogprobs.joined(chunks)

    def _forget(self, request_id: int) -> None:
        del self._sequences[request_id]
        self._injections.pop(request_id, None)
        self._constraints.pop(request_id, None)
        self._pools.pop(request_id, None)
        self._scores.pop(request_id, None)


def _is_begun_by(injection: Injection | None, *, samples: bool) -> bool:
    """Whether there is something to compute without a prompt: of virtual tokens whose KV is given come no logits."""
    if injection is None or injection.num_virtual_tokens == 0:
        return False
    return isinstance(injection, SoftPrompt) or not samples


def _failure(error: Exception | None) -> SequenceFailed | None:
    """What a client may hear of a failure; the cause is in the log, where its text cannot leak."""
    if error is None or isinstance(error, SequenceFailed):
        return error
    return SequenceFailed("the engine could not compute this request")
