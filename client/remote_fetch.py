"""Lets a running server fetch an adapter by itself, and waits for it. Prints nothing, and reads no source."""

import time
from typing import Any

from adapters.naming import check_name
from client.connection import Connection
from client.errors import ServerRefused

PAUSE_SECONDS = 0.2
_RUNNING = ("fetching", "verifying")


def is_remote(source: str) -> bool:
    """Whether a source is one that servers fetch, and not a path of this machine."""
    return "://" in source


def fetch_remotely(connection: Connection, name: str, source: str) -> None:
    """Return when the server has published the adapter. What interrupts the waiting gives up the fetching, too.

    Raises AdapterNameInvalid, ServerUnreachable, and ServerRefused with the reason for which it is refused.
    """
    job = connection.json("POST", "/v1/adapters", json={"name": check_name(name), "source": source})
    try:
        path = f"/v1/adapters/jobs/{job['id']}"
        try:
            while job["state"] in _RUNNING:
                time.sleep(PAUSE_SECONDS)
                job = connection.json("GET", path)
        except KeyboardInterrupt:
            connection.json("DELETE", path)
            raise
        _raise_unless_ready(job)
    except (LookupError, TypeError):
        raise connection.not_ours() from None


def _raise_unless_ready(job: dict[str, Any]) -> None:
    if job["state"] == "refused":
        raise ServerRefused(str(job["error"]["message"]))
    if job["state"] != "ready":
        raise ServerRefused(f"{job['name']}: fetching it was {job['state']}")
