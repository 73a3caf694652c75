"""The engine behind a thread: coroutines on one side, `Engine.step()` on the other. Knows no text and no HTTP.

The thread alone touches the engine. Commands reach it by a queue, between two steps; what a step made reaches the event
loop that asked by one `call_soon_threadsafe` a step.
"""

import asyncio
import itertools
import logging
import queue
import threading
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Iterator
from collections.abc import Sequence as Tokens
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
from numpy.typing import NDArray

from adapters.injections import Injection
from server.engine.adapter_load import AdaptersAtWork
from server.engine.commands import Abort, Add, Ask, Stop, Unpin
from server.engine.constraint import TokenConstraint
from server.engine.delivery import Action, Delivery
from server.engine.engine import Engine, SequenceOutput
from server.engine.errors import EngineDead, EngineDown, EngineError, EngineOverloaded, EngineStopping
from server.engine.outputs import EngineStats, TokenDelta
from server.engine.sampling_params import SamplingParams
from server.engine.stream import Stream

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.05


class AsyncEngine:
    """One thread owns the engine; any number of coroutines, of any event loop, stream from it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._commands: queue.SimpleQueue[Add | Abort | Unpin | Stop] = queue.SimpleQueue()
        self._streams: dict[int, Stream] = {}
        self._streams_lock = threading.Lock()
        self._num_places_taken = 0
        self._request_ids = itertools.count(1)
        self._stats = engine.stats()
        self._deliveries: dict[asyncio.AbstractEventLoop, Delivery] = {}  # the engine's thread alone looks in here
        self._draining = False
        self._ended = False
        self._step_began: float | None = None  # of time.monotonic
        self._fault: str | None = None
        self._thread = self._new_thread()

    @property
    def max_model_len(self) -> int:
        return self._engine.config.max_model_len

    @property
    def vocab_size(self) -> int:
        return self._engine.vocab_size

    @property
    def max_num_seqs(self) -> int:
        return self._engine.config.max_num_seqs

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive() and not self._ended

    @property
    def fault(self) -> str | None:
        """The kind of the fault that the thread ended by last, as ValueError; its text, which may tell of requests, is
        in the log alone.
        """
        return self._fault

    @property
    def is_draining(self) -> bool:
        return self._draining

    def seconds_in_step(self) -> float:
        """How long the step that runs now has taken; 0 between steps and without work. Any thread may ask."""
        began = self._step_began
        return 0.0 if began is None else time.monotonic() - began

    def stats(self) -> EngineStats:
        """The load as it was after the last step."""
        return self._stats

    def adapters_at_work(self) -> AdaptersAtWork:
        """Which adapters requests run with and wait for, now."""
        return self._engine.adapters_at_work()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def restart(self) -> None:
        """Start a new thread where the last one ended by a fault, with no requests and an empty prefix cache.

        A draining engine stays as it is. To be called by one caller at a time, on any thread.
        """
        assert not self.is_alive, "the engine is running"
        self._thread.join()
        self._engine.start_anew()
        self._stats = self._engine.stats()
        with self._streams_lock:  # a drain begins before all this, and nothing starts, or after it
            if self._draining:
                return
            with suppress(queue.Empty):  # of requests that have failed: none is added once the thread has ended
                while True:
                    self._commands.get_nowait()
            self._thread = self._new_thread()
            self._ended = False
            self._thread.start()

    def begin_drain(self) -> None:
        """Take no new request from now on; those that are there go on."""
        with self._streams_lock:
            self._draining = True

    async def stop(self, *, grace_seconds: float) -> None:
        """Drain, for at most so many seconds, then end the thread; what is left then fails with EngineStopping."""
        self.begin_drain()
        deadline = asyncio.get_running_loop().time() + grace_seconds
        while self._streams and self.is_alive and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
        self._commands.put(Stop())
        await asyncio.to_thread(self._thread.join)

    @contextmanager
    def place(self, count: int = 1) -> Iterator[None]:
        """Hold some of the places for requests, so that nothing is read or rendered for one that will be refused.

        Raises EngineOverloaded, EngineStopping.
        """
        self._refuse_when_draining()
        num_places = self._engine.config.max_num_requests
        with self._streams_lock:
            if self._num_places_taken + count > num_places:
                raise EngineOverloaded.with_places_taken(num_places)
            self._num_places_taken += count
        try:
            yield
        finally:
            with self._streams_lock:
                self._num_places_taken -= count

    async def generate(
        self,
        prompt_ids: Tokens[int],
        params: SamplingParams,
        *,
        injection: Injection | None = None,
        tenant_salt: bytes = b"",
        constraint: TokenConstraint | None = None,
    ) -> AsyncGenerator[TokenDelta]:
        """Stream a request's tokens, and before them what it wants to know of its prompt; the last delta has the finish
        reason. Closing the generator aborts the request.

        Requests of different `tenant_salt` find nothing of each other's prompts in the prefix cache.
        `constraint`, which is this request's own, says at each step which tokens may come next.

        Raises PromptInvalid, PromptTooLong, InjectionUnfit, EngineDown, EngineOverloaded, EngineStopping before the
        first delta;
        SequenceFailed, ReaderStalled, EngineDead, EngineStopping at any time.
        """
        self._refuse_when_draining()
        with self._opened(Ask(prompt_ids, params, injection, tenant_salt, constraint=constraint)) as stream:
            while True:
                delta = await stream.next_delta()
                finished = stream.is_finished and not stream.pending and stream.error is None
                if delta.token_ids or delta.finish_reason is not None:
                    yield delta
                if finished:
                    return

    async def embed(
        self, prompt_ids: Tokens[int], *, injection: Injection | None = None, tenant_salt: bytes = b""
    ) -> NDArray[np.float32]:
        """The mean `[hidden_size]` of the last hidden states of a prompt's tokens, virtual ones not among them.

        Raises as `generate`. Cancelling it aborts the request.
        """
        self._refuse_when_draining()
        ask = Ask(prompt_ids, None, injection, tenant_salt, is_pooled=True)
        with self._opened(ask) as stream:
            await stream.next_delta()
            assert stream.mean_hidden is not None, "a pooled sequence ends with its mean or an error"
            return stream.mean_hidden

    async def prefill(self, injection: Injection, *, is_pinned: bool = False) -> None:
        """Leave the KV of an adapter's virtual tokens in the prefix cache. Raises as `generate`.

        Pinned, it stays there until `unpin`, unless pins fill their part of the cache. Of an adapter without virtual
        tokens there is nothing to compute: it is only looked at, whether it fits the model.
        """
        self._engine.require_fit(injection)
        if injection.num_virtual_tokens == 0:
            return
        with self._opened(Ask((), None, injection, is_pinned=is_pinned)) as stream:
            while not stream.is_finished:
                await stream.next_delta()

    def unpin(self, digests: Iterable[str]) -> None:
        """Let the KV of these soft prompts leave the cache like any other, where it was pinned."""
        self._commands.put(Unpin(frozenset(digests)))

    @contextmanager
    def _opened(self, ask: Ask) -> Iterator[Stream]:
        """A request on its way; leaving the block before it has ended aborts it."""
        self._engine.check_request(ask.prompt_ids, ask.params, ask.injection, is_pooled=ask.is_pooled)
        request_id = next(self._request_ids)
        stream = Stream(asyncio.get_running_loop(), partial(self._commands.put, Abort(request_id)))
        self._register(request_id, stream, ask)
        try:
            yield stream
        finally:
            with self._streams_lock:
                self._streams.pop(request_id, None)
            if not stream.is_finished:
                self._commands.put(Abort(request_id))

    def _refuse_when_draining(self) -> None:
        if self._draining:
            raise EngineStopping("the server is shutting down and takes no new request")

    def _register(self, request_id: int, stream: Stream, ask: Ask) -> None:
        with self._streams_lock:  # with the lock, a stream is either seen by a dying thread or sees that it is dead
            if not self.is_alive:
                raise EngineDown("the engine is not running")
            self._streams[request_id] = stream
            self._commands.put(Add(request_id, ask))

    # -- the engine's thread ----------------------------------------------------------------------------------------

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._main, name="engine", daemon=True)

    def _main(self) -> None:
        ending: EngineError = EngineStopping("the server is shutting down")
        try:
            self._loop()
        except BaseException as error:  # whatever it is, those who wait must hear of it
            logger.critical("the engine's thread ended by a fault", exc_info=True)
            self._fault = type(error).__name__
            ending = EngineDead("the engine ended by a fault")
        self._fail_all(ending)

    def _loop(self) -> None:
        while self._apply_commands():
            outputs = self._step()
            self._stats = self._engine.stats()  # before the readers hear of the step
            self._deliver(outputs)

    def _step(self) -> list[SequenceOutput]:
        if not self._engine.has_work:
            return []
        self._step_began = time.monotonic()
        try:
            return self._engine.step()
        finally:
            self._step_began = None

    def _apply_commands(self) -> bool:
        """Apply what is queued, waiting for something when there is nothing else to do. False when told to stop."""
        try:
            command = self._commands.get(block=not self._engine.has_work)
            while True:
                if isinstance(command, Stop):
                    return False
                self._apply(command)
                command = self._commands.get_nowait()
        except queue.Empty:
            return True

    def _apply(self, command: Add | Abort | Unpin) -> None:
        if isinstance(command, Abort):
            self._engine.abort(command.request_id)
        elif isinstance(command, Unpin):
            for digest in command.digests:
                self._engine.unpin(digest)
        else:
            self._add(command)

    def _add(self, command: Add) -> None:
        ask = command.ask
        try:
            self._engine.add_request(
                command.request_id,
                ask.prompt_ids,
                ask.params,
                ask.injection,
                tenant_salt=ask.tenant_salt,
                is_pinned=ask.is_pinned,
                constraint=ask.constraint,
                is_pooled=ask.is_pooled,
            )
        except EngineError as error:
            stream = self._streams.get(command.request_id)
            if stream is not None:
                self._send(stream.loop, [partial(stream.fail, error)])

    def _deliver(self, outputs: list[SequenceOutput]) -> None:
        by_loop: defaultdict[asyncio.AbstractEventLoop, list[Action]] = defaultdict(list)
        for output in outputs:
            stream = self._streams.get(output.request_id)
            if stream is not None:
                by_loop[stream.loop].append(partial(stream.push, output))
        for loop, actions in by_loop.items():
            self._send(loop, actions)

    def _send(self, loop: asyncio.AbstractEventLoop, actions: list[Action]) -> None:
        delivery = self._deliveries.get(loop)
        if delivery is None:
            delivery = self._deliveries[loop] = Delivery(loop)
        try:
            loop.call_soon_threadsafe(delivery.add, actions)
        except RuntimeError:  # the loop is closed: nobody reads any more
            logger.debug("a reader's event loop has closed")

    def _fail_all(self, error: EngineError) -> None:
        with self._streams_lock:
            self._ended = True
            streams = list(self._streams.values())
        for stream in streams:
            self._send(stream.loop, [partial(stream.fail, error)])
