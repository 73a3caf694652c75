"""Flips bits of stored versions, one at a time, and counts how many of them are found at load."""

import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from adapters.errors import AdapterDamaged
from adapters.files import AdapterFiles
from adapters.store import AdapterStore
from tests.adapters.making import adapter_files

NUM_VERSIONS = 20


def whole_files(seed: int) -> AdapterFiles:
    """An adapter with all the files that one may have."""
    manifest = b'{"chat_format": {"template": "{{ messages }}", "system_prompt": "Be kind."}}'
    return replace(adapter_files(seed=seed, manifest=manifest), card=b"# An adapter\n")


def flip_bits(root: Path, flips: int) -> int:
    """Flip so many bits, anywhere in twenty versions of a new store; returns how many loads were refused as damaged.

    Each bit is flipped back after it. Raises AdapterError where a version is not whole again in the end.
    """
    chance = random.Random(flips)
    store = AdapterStore(root)
    digests = [store.publish(f"a{seed}", whole_files(seed)).manifest.digest for seed in range(NUM_VERSIONS)]
    paths = [path for digest in digests for path in sorted(store.path_of(digest).iterdir())]
    found = 0
    for path in chance.choices(paths, weights=[path.stat().st_size for path in paths], k=flips):
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with suppress(AdapterDamaged):
            store.read("a", path.parent.name)
            found -= 1
        found += 1
        path.write_bytes(whole)
    for digest in digests:
        store.read("a", digest)
    return found
