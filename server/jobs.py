"""AdapterJobs: adapters that are fetched and published in the background, a few at a time. Knows no route, no source.

    fetching -> verifying -> ready | refused, and cancelled from the first two

A job lives on the event loop. Nothing of it lies on a disk before the store has it: whatever ends it leaves no litter.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal
from uuid import uuid4

from adapters.files import AdapterFiles
from server.error_bodies import error_body, log_failure
from server.errors import JobNotFound, JobsBusy
from server.protocol.errors import ErrorBody
from server.sources.fetcher import Fetcher
from server.sources.locations import Location
from server.sources.parcel import Progress

MAX_RUNNING = 4
"""Each may hold a whole adapter in memory."""
MAX_ENDED = 100
"""So many are remembered after their end; the oldest are forgotten first."""

JobState = Literal["fetching", "verifying", "ready", "refused", "cancelled"]
Publish = Callable[[str, AdapterFiles, str], Awaitable[str]]
"""Checks files, makes a name stand for them with where they were, and gives back their digest.

Raises whatever refuses them.
"""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Job:
    """One adapter on its way; times in seconds since the epoch. Changed by AdapterJobs alone."""

    id: str
    name: str
    source: str
    """As the client wrote it."""
    created: int
    progress: Progress = field(default_factory=Progress)
    state: JobState = "fetching"
    resolved: str | None = None
    """Where exactly the files were: a hub's revision is a commit here."""
    digest: str | None = None
    error: ErrorBody | None = None
    ended: int | None = None

    def end(self, state: JobState) -> None:
        """From now on nothing changes any more."""
        self.state = state
        self.ended = int(time.time())


class AdapterJobs:
    """Runs jobs and remembers them. Belongs to the event loop's thread: nothing in here locks."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._jobs: dict[str, Job] = {}  # oldest first
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by the id of a job that has not ended

    def start(self, name: str, source: str, publish: Publish) -> Job:
        """Begin to fetch an adapter. Raises SourceRefused, and JobsBusy while MAX_RUNNING others run."""
        location = self._fetcher.locate(source)
        if len(self._tasks) >= MAX_RUNNING:
            raise JobsBusy(f"{MAX_RUNNING} adapters are being fetched already; try again, or cancel one")
        job = Job(f"job-{uuid4().hex}", name, source, int(time.time()))
        self._jobs[job.id] = job
        task = asyncio.create_task(self._run(job, location, publish), name=job.id)
        self._tasks[job.id] = task
        task.add_done_callback(lambda _: self._end(job))
        return job

    def all(self) -> list[Job]:
        """All that run or are remembered, oldest first."""
        return [*self._jobs.values()]

    def get(self, job_id: str) -> Job:
        """Raises JobNotFound for one that never was, or is forgotten."""
        try:
            return self._jobs[job_id]
        except KeyError:
            raise JobNotFound(f"there is no job {job_id[:80]!r}, or it ended long ago") from None

    async def cancel(self, job_id: str) -> Job:
        """End a job, and give it back when it has ended: as cancelled, unless it was too late. Raises JobNotFound."""
        job = self.get(job_id)
        if (task := self._tasks.get(job_id)) is not None:
            task.cancel()
            await asyncio.wait([task])
        return job

    async def close(self) -> None:
        """Cancel all that runs, and wait for it."""
        self._fetcher.close()
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, job: Job, location: Location, publish: Publish) -> None:
        try:
            files, resolved = await self._fetcher.fetch(location, job.progress)
            job.resolved, job.state = str(resolved), "verifying"
            job.digest = await publish(job.name, files, job.resolved)
            job.end("ready")
            logger.info("adapter %r is %s, from %r", job.name, job.digest[:12], job.resolved)
        except Exception as error:  # nobody else would hear of it
            log_failure(error)
            job.error = error_body(error).error
            job.end("refused")

    def _end(self, job: Job) -> None:
        """Also of a job that was cancelled before it had begun."""
        if job.ended is None:
            job.end("cancelled")
        del self._tasks[job.id]
        ended = [job.id for job in self._jobs.values() if job.ended is not None]
        for job_id in ended[: max(len(ended) - MAX_ENDED, 0)]:
            del self._jobs[job_id]
