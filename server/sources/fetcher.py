"""Fetcher: an adapter's files from wherever they may come from. Knows no job and no route."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from adapters.files import AdapterFiles
from server.sources.errors import SourceUnavailable
from server.sources.locations import AllowedSources, Location, parse_location
from server.sources.parcel import Parcel, Progress
from server.sources.roots import AdapterRoots

FETCH_SECONDS = 3600
"""A source that is slower than this is given up."""


class Fetcher:
    """Fetches from directories below roots and from allowed sources; blocking reads have threads of their own.

    Requests' work is done in the event loop's threads, which slow disks and hubs must not take.
    """

    def __init__(
        self, roots: AdapterRoots, allowed: AllowedSources, *, max_weights_bytes: int, num_threads: int
    ) -> None:
        self._roots = roots
        self._allowed = allowed
        self._max_weights_bytes = max_weights_bytes
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="sources")

    def locate(self, source: str) -> Location:
        """What a client calls a source, if it may be read here. Raises SourceRefused."""
        location = parse_location(source)
        if location.scheme == "file":
            self._roots.check(source)
        else:
            self._allowed.check(location)
        return location

    async def fetch(self, location: Location, progress: Progress) -> tuple[AdapterFiles, Location]:
        """The files of an adapter, and where exactly they were: a hub's revision has become a commit.

        Raises SourceError, AdapterInvalid, AdapterTooLarge. Cancelling it leaves nothing behind.
        """
        parcel = Parcel(progress, max_weights_bytes=self._max_weights_bytes)
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                resolved = await self._fill(location, parcel)
        except TimeoutError:
            raise SourceUnavailable(f"the source gave not all in {FETCH_SECONDS} seconds") from None
        return parcel.files(), resolved

    def close(self) -> None:
        """Start nothing more; what threads still read is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _fill(self, location: Location, parcel: Parcel) -> Location:
        match location.scheme:
            case "file":
                loop = asyncio.get_running_loop()
                files = await loop.run_in_executor(self._threads, self._roots.read, str(location))
                parcel.fill(files)
                return location
            case "hf":
                from server.sources.hub import fetch_from_hub

                return await fetch_from_hub(location, parcel, self._threads)
            case _:
                from server.sources.buckets import fetch_from_bucket

                await fetch_from_bucket(location, parcel, self._threads)
                return location
