"""AdapterVerifier: an adapter's probes through this server's own engine, compared with what they expect. Knows no HTTP.

Probes are ordinary requests, a few at a time: streams that run beside them go on as beside any others.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing

import numpy as np
from numpy.typing import NDArray

from adapters.injections import Injection
from adapters.probes import Probe
from adapters.verification import NO_PROBES, EngineNumbers, Replay, Verification, compared, unverified
from adapters.weights import Adapter
from server.engine.async_engine import AsyncEngine
from server.engine.sampling_params import SamplingParams

MAX_AT_ONCE = 4
_WORD_BITS = 32


class ForcedTokens:
    """Allows one token at each step, those of a given answer in turn: what the model says of them is then reported."""

    def __init__(self, token_ids: Sequence[int]) -> None:
        self._token_ids = token_ids
        self._num_accepted = 0

    def fill(self, mask: NDArray[np.int32]) -> None:
        token_id = self._token_ids[self._num_accepted]
        mask.view(np.uint32)[token_id // _WORD_BITS] = np.uint32(1 << token_id % _WORD_BITS)

    def accept(self, token_id: int) -> None:  # noqa: ARG002  # there was no other
        self._num_accepted += 1


class AdapterVerifier:
    """Replays probes on one engine; `numbers` is what that engine computes in."""

    def __init__(self, engine: AsyncEngine, numbers: EngineNumbers) -> None:
        self._engine = engine
        self._numbers = numbers

    async def verify(self, adapter: Adapter) -> Verification:
        """What the probes say of an adapter that need not be published. Cancelling it aborts what is still computed.

        Raises EngineOverloaded, EngineStopping, SequenceFailed, EngineDead.
        """
        probes = adapter.manifest.probes
        if probes is None:
            return unverified(NO_PROBES, self._numbers, checked=int(time.time()))
        replays: list[Replay | None] = []
        with self._engine.place(min(MAX_AT_ONCE, len(probes.items))):
            for start in range(0, len(probes.items), MAX_AT_ONCE):
                replays.extend(await self._replay_group(probes.items[start : start + MAX_AT_ONCE], adapter.injection))
            equals_base = await self._equals_base(probes.items, replays)
        return compared(
            probes,
            replays,
            chat_format=adapter.manifest.chat_format_fingerprint,
            equals_base=equals_base,
            numbers=self._numbers,
            checked=int(time.time()),
        )

    async def _replay_group(self, probes: Sequence[Probe], injection: Injection) -> list[Replay | None]:
        tasks = [asyncio.create_task(self._replay(probe, injection)) for probe in probes]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _replay(self, probe: Probe, injection: Injection) -> Replay | None:
        """None for a probe that this server has no room for."""
        if not self._fits(probe, injection):
            return None
        made, logprobs = await self._answer(probe, injection, None)
        first_choice = logprobs[0]
        if made != probe.expected_ids:
            _, logprobs = await self._answer(probe, injection, ForcedTokens(probe.expected_ids))
        gap = first_choice - logprobs[0] if made[0] != probe.expected_ids[0] else 0.0
        return Replay(made, sum(logprobs) / len(logprobs), gap)

    async def _equals_base(self, probes: Sequence[Probe], replays: Sequence[Replay | None]) -> bool:
        """Whether the base model answers every probe as the adapter does; ends at the first that it does not."""
        for probe, replay in zip(probes, replays, strict=True):
            if replay is not None:
                made, _ = await self._answer(probe, None, None)
                if made != replay.token_ids:
                    return False
        return True

    async def _answer(
        self, probe: Probe, injection: Injection | None, forced: ForcedTokens | None
    ) -> tuple[tuple[int, ...], list[float]]:
        """The greedy answer, as long as the expected one, or the forced one; and its tokens' log-probabilities."""
        params = SamplingParams(max_tokens=len(probe.expected_ids), temperature=0, num_logprobs=0)
        made: list[int] = []
        logprobs: list[float] = []
        deltas = self._engine.generate(
            probe.prompt_ids, params, injection=injection, tenant_salt=_SALT, constraint=forced
        )
        async with aclosing(deltas):
            async for delta in deltas:
                made.extend(delta.token_ids)
                logprobs.extend(token.logprob for token in delta.logprobs)
        return tuple(made), logprobs

    def _fits(self, probe: Probe, injection: Injection) -> bool:
        length = injection.num_virtual_tokens + len(probe.prompt_ids) + len(probe.expected_ids)
        ids_end = max(*probe.prompt_ids, *probe.expected_ids)
        return length <= self._engine.max_model_len and ids_end < self._engine.vocab_size


_SALT = b"probes"
"""Probes come from training data: no key's requests find their prompts in the prefix cache."""
