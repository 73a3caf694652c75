"""Fetches an adapter from a repository of the hub, at the commit that its revision is now. Knows no job.

Addresses, headers, token and client are huggingface_hub's own (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE); nothing is
written to its cache.
"""

import asyncio
import logging
import re
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import httpx2
from huggingface_hub import (
    get_async_session,
    get_hf_file_metadata,
    get_token,
    hf_hub_url,
    hf_raise_for_status,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from server.sources.errors import SourceUnavailable
from server.sources.locations import Location
from server.sources.parcel import FILE_NAMES, Parcel

ANSWER_SECONDS = 10
STALL_SECONDS = 30
_COMMIT = re.compile(r"[0-9a-f]{40}")

logger = logging.getLogger(__name__)


async def fetch_from_hub(location: Location, parcel: Parcel, threads: Executor) -> Location:
    """Fill a parcel with the adapter's files in a repository's root; the location that is given back has the commit.

    Raises SourceUnavailable, and as `Parcel.expect` before any content is read.
    """
    loop = asyncio.get_running_loop()
    with _failures_told(location):
        resolved, sizes = await _look(location, threads)
        parcel.expect(sizes)
        client = await loop.run_in_executor(threads, get_async_session)  # reads certificates
        async with client:
            for name in sizes:
                await _stream(client, resolved, name, parcel)
    return resolved


async def _look(location: Location, threads: Executor) -> tuple[Location, dict[str, int]]:
    """The commit that a revision is now, and the sizes of the adapter's files that there are in it."""
    loop = asyncio.get_running_loop()
    resolved = location
    sizes = {}
    for name in FILE_NAMES:
        try:
            ask = partial(get_hf_file_metadata, _url(resolved, name), timeout=ANSWER_SECONDS)
            metadata = await loop.run_in_executor(threads, ask)
        except EntryNotFoundError:
            continue
        if metadata.commit_hash is None or not _COMMIT.fullmatch(metadata.commit_hash) or metadata.size is None:
            raise SourceUnavailable(f"{name}: the hub does not say its commit and its size")
        resolved = replace(location, revision=metadata.commit_hash)
        sizes[name] = metadata.size
    return resolved, sizes


async def _stream(client: httpx2.AsyncClient, location: Location, name: str, parcel: Parcel) -> None:
    headers = {"accept-encoding": "identity"}  # what is counted is what was sent
    if (token := get_token()) is not None:
        headers["authorization"] = f"Bearer {token}"
    async with client.stream("GET", _url(location, name), headers=headers, timeout=STALL_SECONDS) as response:
        hf_raise_for_status(response)
        async for piece in response.aiter_raw():
            parcel.take(name, piece)


def _url(location: Location, name: str) -> str:
    return hf_hub_url("/".join(location.parts), name, revision=location.revision)


@contextmanager
def _failures_told(location: Location) -> Iterator[None]:
    """What the client raises holds addresses, with signatures too: the client is told the kind of it alone."""
    try:
        yield
    except (httpx2.HTTPError, OSError, ValueError) as error:
        logger.warning("%s cannot be fetched: %s", location, type(error).__name__)
        raise SourceUnavailable(_worded(error)) from None


def _worded(error: Exception) -> str:
    match error:
        case OfflineModeIsEnabled():
            return "the server runs with HF_HUB_OFFLINE"
        case GatedRepoError():
            return "the repository is gated, and the server's token may not read it"
        case RepositoryNotFoundError():
            return "the hub has no such repository, or none that the server's token may read"
        case RevisionNotFoundError():
            return "the repository has no such revision"
        case _:
            return "the hub cannot be reached, or gave no answer that can be used; the server's log says why"
