"""Starts the engine anew when its thread has ended by a fault, a few times and no more. Knows no HTTP and no model."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from server.engine.async_engine import AsyncEngine

LOOK_SECONDS = 0.1
STALL_SECONDS = 60.0
"""A step that takes longer counts as hung."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RestartLimit:
    """An engine that fails more than `count` times in `seconds` stays down: whoever keeps the process may help."""

    count: int = 3
    seconds: float = 300.0


class EngineSupervisor:
    """Looks after one engine from the event loop, while `watching`."""

    def __init__(
        self,
        engine: AsyncEngine,
        limit: RestartLimit = RestartLimit(),
        *,
        stall_seconds: float = STALL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._limit = limit
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._restarts: deque[float] = deque()  # when, those within the limit's seconds
        self._is_restarting = False
        self.has_given_up = False
        self.num_restarts = 0

    @property
    def is_up(self) -> bool:
        """Whether the engine runs and has all that it had at the start."""
        return self._engine.is_alive and not self._is_restarting and not self.is_stalled

    @property
    def is_stalled(self) -> bool:
        """Whether the engine's thread lives, but has not finished its step for too long. It is not started anew: what a
        thread hangs in cannot be taken from it. Who keeps the process may end it.
        """
        return self._engine.is_alive and self._engine.seconds_in_step() > self._stall_seconds

    @property
    def reason(self) -> str | None:
        """Why the engine is not up, for whoever asks after its health; None while it is, and after an orderly end."""
        if self.is_stalled:
            seconds = self._engine.seconds_in_step()
            return f"the engine has not finished a step for {seconds:.0f} seconds; the server must be restarted"
        if self.is_up or self._engine.fault is None:
            return None
        fault = f"the engine's thread ended by a fault ({self._engine.fault})"
        if self.has_given_up:
            return f"{fault} and is not started again; the server must be restarted"
        return f"{fault} and is being started anew"

    @asynccontextmanager
    async def watching(self, prepare: Callable[[], Awaitable[None]]) -> AsyncGenerator[None]:
        """Inside the block, an engine that ends by a fault is started anew, and then `prepare` is called."""
        watch = asyncio.create_task(self._watch(prepare))
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch

    async def _watch(self, prepare: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._engine.is_alive or self._engine.is_draining:
                continue
            if not self._may_restart():
                self.has_given_up = True
                logger.critical("the engine stays down: %s", self.reason)
                return
            await self._restart(prepare)

    def _may_restart(self) -> bool:
        now = self._clock()
        while self._restarts and now - self._restarts[0] >= self._limit.seconds:
            self._restarts.popleft()
        if len(self._restarts) >= self._limit.count:
            return False
        self._restarts.append(now)
        return True

    async def _restart(self, prepare: Callable[[], Awaitable[None]]) -> None:
        """One try; what goes wrong is told in the log, and the next look finds the engine down or not."""
        self._is_restarting = True
        try:
            await asyncio.to_thread(self._engine.restart)
            await prepare()
            self.num_restarts += 1
            logger.warning("the engine was started anew after a fault (%s)", self._engine.fault)
        except Exception:
            logger.exception("the engine could not be started anew")
        finally:
            self._is_restarting = False
