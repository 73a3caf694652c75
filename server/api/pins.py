"""Keeps the engine's pins in step with the registry's. Knows no route."""

from collections.abc import Iterator
from contextlib import contextmanager

from server.api.deps import Parts


@contextmanager
def pins_settled(parts: Parts, *prefilled: str) -> Iterator[None]:
    """Around a change of adapters: afterwards the KV of what is not pinned, or not any more, may leave the cache.

    `prefilled` are digests that the change pins in the engine before they are pinned in the registry.
    """
    before = parts.registry.pinned_digests()
    try:
        yield
    finally:
        parts.engine.unpin((before | set(prefilled)) - parts.registry.pinned_digests())
