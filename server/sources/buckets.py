"""Fetches an adapter from a bucket of S3, Google or Azure, through obstore. Knows no HTTP route and no job.

Endpoint, region and credentials come by the environment alone (AWS_, GOOGLE_ and AZURE_ variables). A file is read
in ranges, each of which must belong to the object that was there at the beginning.
"""

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from server.sources.errors import SourceUnavailable
from server.sources.locations import Location
from server.sources.parcel import FILE_NAMES, Parcel

RANGE_BYTES = 4 * 1024 * 1024
PIECE_BYTES = 256 * 1024
MAX_RETRIES = 3
RETRY_SECONDS = 30

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """Bytes of an object, and what tells one content of it from another."""

    size: int
    tag: str | None


async def fetch_from_bucket(location: Location, parcel: Parcel, threads: Executor) -> None:
    """Fill a parcel with the adapter's files below a path.

    Raises SourceUnavailable, and as `Parcel.expect` before any content is read.
    """
    with _failures_told(location):
        store = await asyncio.get_running_loop().run_in_executor(threads, _open, location)
        found = await _look(store)
        parcel.expect({name: file.size for name, file in found.items()})
        for name, file in found.items():
            for start in range(0, file.size, RANGE_BYTES):
                end = min(start + RANGE_BYTES, file.size)
                options: obstore.GetOptions = {"range": (start, end), "if_match": file.tag}
                result = await obstore.get_async(store, name, options=options)
                async for piece in result.stream(PIECE_BYTES):
                    parcel.take(name, piece)
        if await _look(store) != found:
            raise SourceUnavailable("the files were changed while they were fetched")


def _open(location: Location) -> ObjectStore:
    bucket, *path = location.parts
    prefix = "/".join(path) or None
    retries: obstore.store.RetryConfig = {
        "max_retries": MAX_RETRIES,
        "retry_timeout": timedelta(seconds=RETRY_SECONDS),
    }
    match location.scheme:
        case "s3":
            return S3Store(bucket, prefix=prefix, retry_config=retries)
        case "gs":
            return GCSStore(bucket, prefix=prefix, retry_config=retries)
        case _:
            return AzureStore(bucket, prefix=prefix, retry_config=retries)


async def _look(store: ObjectStore) -> dict[str, StoredFile]:
    """The adapter's files that there are, by name."""
    found = {}
    for name in FILE_NAMES:
        try:
            meta = await obstore.head_async(store, name)
        except FileNotFoundError:
            continue
        found[name] = StoredFile(meta["size"], meta["e_tag"])
    return found


@contextmanager
def _failures_told(location: Location) -> Iterator[None]:
    """What obstore raises holds addresses and whole answers: that is for the log, and not for the client."""
    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        logger.warning("%s cannot be fetched: %.500s", location, error)
        raise SourceUnavailable(_worded(error)) from None


def _worded(error: Exception) -> str:
    match error:
        case PermissionDeniedError() | UnauthenticatedError():
            return "the store refuses the server's credentials; they must allow to list, too, to tell which files exist"
        case PreconditionError() | FileNotFoundError():
            return "the files were changed while they were fetched"
        case _:
            return "the store cannot be reached, or gave no answer that can be used; the server's log says why"
