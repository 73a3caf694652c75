"""Follower: takes over what other processes change in the store, so that servers can share one. Knows no routes.

That an adapter answers, or no longer does, needs no follower: every request asks the store what its name stands for.
The follower brings memory, pins and virtual tokens into step, before a request has to.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from adapters.errors import AdapterError, AdapterIncompatible, AdapterNotFound, StoreFailure
from adapters.store_watch import StoreWatch
from adapters.weights import Adapter
from server.api.deps import Parts
from server.api.pins import pins_settled
from server.engine.errors import EngineError, EngineOverloaded

PAUSE_SECONDS = 0.25
MOST_OF_THE_TIME = 0.2
"""The share of one thread's time that looking may take: with tens of thousands of names, the pauses are longer."""

logger = logging.getLogger(__name__)


@asynccontextmanager
async def store_followed(parts: Parts) -> AsyncGenerator[None]:
    """Inside the block, the app is in step with its store. Raises StoreFailure where the store cannot be read."""
    watch = await asyncio.to_thread(parts.registry.store.watch)
    following = asyncio.create_task(Follower(parts, watch).run())
    try:
        yield
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following


class Follower:
    """Follows one store for one app, until it is cancelled."""

    def __init__(self, parts: Parts, watch: StoreWatch) -> None:
        self._parts = parts
        self._watch = watch
        self._owed: set[str] = set()  # names that changed and are not followed yet
        self._unready: dict[str, Adapter] = {}  # by digest, what waits for its virtual tokens
        self._may_free = False
        self._trouble = ""
        self._seconds_of_look = 0.0

    async def run(self) -> None:
        """Look four times a second. What goes wrong is told in the log, and once for as long as it is the same."""
        while True:
            await asyncio.sleep(max(PAUSE_SECONDS, self._seconds_of_look * (1 / MOST_OF_THE_TIME - 1)))
            try:
                await self._catch_up()
            except StoreFailure as error:
                if str(error) != self._trouble:
                    self._trouble = str(error)
                    logger.warning("changes in the store are not followed now: %s", error)
            except Exception:
                logger.exception("changes in the store could not be followed")
            else:
                self._trouble = ""

    async def _catch_up(self) -> None:
        begun = time.monotonic()
        changes = await asyncio.to_thread(self._watch.look)
        self._seconds_of_look = time.monotonic() - begun
        self._owed |= changes.names
        self._may_free |= changes.has_other_versions
        if self._may_free:
            await asyncio.to_thread(self._parts.registry.free_removed)
            self._may_free = False
        for name in sorted(self._owed):
            await self._follow(name)
            self._owed.discard(name)
        for digest, adapter in list(self._unready.items()):
            if not await self._is_settled(adapter):
                break
            del self._unready[digest]

    async def _follow(self, name: str) -> None:
        registry = self._parts.registry
        try:
            with pins_settled(self._parts):
                for adapter in await asyncio.to_thread(registry.follow, name):
                    self._unready[adapter.injection.digest] = adapter
        except AdapterNotFound:
            self._parts.use.forget(name)
        except AdapterIncompatible as error:
            logger.info("adapter %r has changed in the store: %s", name, error)
        except AdapterError as error:
            logger.warning("adapter %r has changed in the store and cannot be loaded: %s", name, error)

    async def _is_settled(self, adapter: Adapter) -> bool:
        """Compute virtual tokens, if the adapter is still there; False where the server is too busy for that now."""
        registry, digest = self._parts.registry, adapter.injection.digest
        if not registry.is_resident(digest):
            return True
        try:
            with pins_settled(self._parts, digest):
                is_pinned = digest in registry.pinned_digests()
                await self._parts.engine.prefill(adapter.injection, is_pinned=is_pinned)
        except EngineOverloaded:
            return False
        except EngineError as error:
            logger.warning("adapter %r has changed in the store: %s", adapter.manifest.name, error)
        return True
