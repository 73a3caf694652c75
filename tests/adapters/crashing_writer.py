"""Forks writers of a store and kills each at a random moment. Run as a module, with ROOT KILLS SEED.

Writes one JSON line: how many publishes were acknowledged, and every problem found. It is a process of its own because
a fork is cheap only where torch is imported and no other thread runs.
"""

import json
import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

from adapters.errors import AdapterError
from adapters.files import read_adapter_directory
from adapters.store import AdapterStore
from adapters.weights import read_adapter
from tests.adapters.making import adapter_files

LONGEST_LIFE_SECONDS = 0.06


def write_until_killed(root: Path, name: str, seed: int, acknowledge: int) -> None:
    """Publish version after version of `name`, acknowledging each; between them everything else that writes."""
    store = AdapterStore(root)
    store.publish(name, adapter_files(seed=seed))
    os.write(acknowledge, b"\n")
    for step in range(1_000_000):
        digest = store.publish(name, adapter_files(seed=seed + step)).manifest.digest
        os.write(acknowledge, f"{digest}\n".encode())
        with suppress(AdapterError):
            store.pin(name, pinned=step % 2 == 0)
            store.publish("shared", adapter_files(seed=seed + step))
            store.alias("alias", f"shared@{digest[:12]}")
            store.rollback("shared")
            store.remove("alias")
            store.remove("shared")


def run_and_kill(root: Path, name: str, chance: random.Random) -> list[str]:
    """One writer's life. Returns the digests that it acknowledged."""
    reading, writing = os.pipe()
    writer = os.fork()
    if writer == 0:
        write_until_killed(root, name, chance.randrange(1 << 40), writing)
        os._exit(1)
    os.close(writing)
    with open(reading) as pipe:
        pipe.readline()  # it is at work
        time.sleep(chance.uniform(0, LONGEST_LIFE_SECONDS))
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        return pipe.read().split()


def problems_of_names(root: Path, acknowledged: dict[str, list[str]]) -> list[str]:
    """Acknowledged publishes that are not there, and records or versions that cannot be read."""
    store = AdapterStore(root)
    problems = []
    for name, digests in acknowledged.items():
        try:
            versions = [version.digest for version in store.record(name).versions]
            for digest in versions:
                store.read(name, digest)
            problems += [f"{name}: {digest} is lost" for digest in digests if digest not in versions]
        except AdapterError as error:
            problems.append(f"{name}: {error}")
    return problems


def problems_of_versions(root: Path) -> list[str]:
    """Version directories that are not whole, whether or not a name stands for them."""
    problems = []
    for directory in (root / "versions").iterdir():
        try:
            if read_adapter("x", read_adapter_directory(directory)).manifest.digest != directory.name:
                problems.append(f"{directory.name} has another content")
        except AdapterError as error:
            problems.append(f"{directory.name}: {error}")
    return problems


def main(root: Path, kills: int, seed: int) -> None:
    """Kill `kills` writers, look at the store after each, and at all of it in the end."""
    torch.set_num_threads(1)
    chance = random.Random(seed)
    acknowledged: dict[str, list[str]] = {}
    problems = []
    for number in range(kills):
        name = f"writer-{number}"
        digests = run_and_kill(root, name, chance)
        if digests:
            acknowledged[name] = digests
            problems += problems_of_names(root, {name: digests})
        problems += problems_of_names(root, {name: [] for name in ("shared",) if (root / "names/shared.json").exists()})
    problems += problems_of_names(root, acknowledged) + problems_of_versions(root)
    summary = {"acknowledged": sum(map(len, acknowledged.values())), "problems": problems}
    sys.stdout.write(json.dumps(summary) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
