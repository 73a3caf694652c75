"""What a server does for its store: repair it at the start, then read every version once. Knows no requests."""

import logging
import threading

from adapters.errors import StoreFailure, StoreReadOnly
from adapters.store import AdapterStore

PAUSE_SECONDS = 0.002
"""Between two versions, so that those who wait for an answer hardly notice; a version takes a millisecond."""

logger = logging.getLogger(__name__)


def repair_store(store: AdapterStore) -> None:
    """Clear what a crash left, and tell of names that are damaged. A store that may only be read is served as it is."""
    try:
        store.repair()
    except StoreReadOnly as error:
        logger.info("changes of adapters will be refused: %s", error)
    except StoreFailure as error:
        logger.warning("the store is not repaired: %s", error)
    for damaged in store.damaged():
        logger.warning("%r is not served: %s", damaged.name, damaged.problem)


def check_versions(store: AdapterStore, is_over: threading.Event) -> None:
    """Read every version and put those that lost their content into quarantine, until `is_over` is set.

    Meanwhile they are as little served as afterwards: every use checks the digest too.
    """
    try:
        for digest in store.digests():
            if is_over.wait(PAUSE_SECONDS):
                return
            _check(store, digest)
    except StoreFailure as error:
        logger.warning("versions are no longer checked: %s", error)


def _check(store: AdapterStore, digest: str) -> None:
    try:
        if store.quarantine_if_damaged(digest):
            logger.warning("version %s lost its content on the disk and is in quarantine now", digest[:12])
    except StoreReadOnly:
        logger.warning("version %s lost its content on the disk; who may write to the store must mend it", digest[:12])
