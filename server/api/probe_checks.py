"""Replays an adapter's probes before a name moves to it, and refuses what does not answer as it should. No routes."""

import asyncio
import logging

from adapters.errors import AdapterMismatch
from adapters.manifest import MANIFEST_FILE
from adapters.records import NameRecord
from adapters.verification import Verification
from adapters.weights import Adapter
from server.api.deps import Parts

logger = logging.getLogger(__name__)


async def replayed(parts: Parts, adapter: Adapter) -> Verification:
    """What the probes say, to be kept with the version.

    Raises AdapterMismatch, unless the server keeps such adapters; and as `AdapterVerifier.verify`.
    """
    verification = await parts.verifier.verify(adapter)
    if verification.state == "mismatch" and not parts.keeps_mismatches:
        raise AdapterMismatch(MANIFEST_FILE, verification.detail)
    if verification.state in ("mismatch", "no_effect"):
        logger.warning("adapter %r: %s", adapter.manifest.name, verification.detail)
    return verification


async def settle_probes(parts: Parts, record: NameRecord, adapter: Adapter) -> None:
    """Replay the probes of a name's version that no server has replayed yet, and keep what they say.

    Raises as `replayed`.
    """
    if record.version(adapter.manifest.digest).verification is not None:
        return
    verification = await replayed(parts, adapter)
    await asyncio.to_thread(parts.registry.store.note_verification, record.name, adapter.manifest.digest, verification)
