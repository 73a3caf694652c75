"""Adapters that the server fetches by itself, on the wire; the form is our own. Knows no route."""

from typing import Literal

from pydantic import Field

from server.protocol.base import RequestBody, ResponseBody
from server.protocol.errors import ErrorBody

MAX_SOURCE_CHARS = 4096


class AdapterSource(RequestBody):
    """Body of POST /v1/adapters in place of an upload: the server fetches the adapter's files itself."""

    name: str = Field(min_length=1, max_length=63)
    source: str = Field(min_length=1, max_length=MAX_SOURCE_CHARS)
    """A directory below one of --adapter-roots, or hf://, s3://, gs:// or az:// below one of --adapter-sources."""


class AdapterJob(ResponseBody):
    """One adapter on its way; times in seconds since the epoch.

    `resolved` is where exactly the files were (a hub's revision is a commit there), `digest` the version that a job
    in the state `ready` has published, `error` why one is `refused`. `bytes_total` is null until the source has told.
    """

    id: str
    object: Literal["adapter.job"] = "adapter.job"
    name: str
    source: str
    resolved: str | None
    state: Literal["fetching", "verifying", "ready", "refused", "cancelled"]
    bytes_fetched: int
    bytes_total: int | None
    created: int
    ended: int | None
    digest: str | None
    error: ErrorBody | None


class AdapterJobList(ResponseBody):
    """Oldest first."""

    object: Literal["list"] = "list"
    data: list[AdapterJob]
