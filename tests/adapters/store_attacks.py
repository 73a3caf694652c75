"""Attacks the store for as long as one likes, and says what came of it: python -m tests.adapters.store_attacks --help.

The suite has the same attacks, small ones among the fast tests. Exits with 1 when one has found something.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from adapters.store import AdapterStore
from tests.adapters.flipping import flip_bits
from tests.adapters.hostile_names import OpenedPaths, ask_for_hostile_names
from tests.adapters.store_changes import CHANGES, litter_of
from tests.adapters.store_machine import run_machines


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attack did, in words, and what it found wrong."""

    done: str
    problems: list[str]


def kill_writers(directory: Path, kills: int, seed: int) -> Outcome:
    """Kill writers at random moments, each by SIGKILL while it publishes, aliases, rolls back and deletes."""
    root = directory / "store"
    AdapterStore(root)
    summary = _summary_of("tests.adapters.crashing_writer", root, kills, seed)
    store = AdapterStore(root)
    store.repair()
    problems = summary["problems"] + litter_of(root)
    if summary["acknowledged"] < kills / 10:
        problems.append("the writers died too young to prove anything")
    return Outcome(
        f"{kills} writers killed by SIGKILL, {summary['acknowledged']} publishes acknowledged; "
        f"torn, lost or left lying: {len(problems)}",
        problems,
    )


def kill_at_every_call(directory: Path, moments: str) -> Outcome:
    """Kill a writer at every system call of every change to a store."""
    summary = _summary_of("tests.adapters.dying_writer", directory, moments, *CHANGES)
    deaths = sum(summary["deaths"].values())
    return Outcome(
        f"{deaths} deaths at every call of {len(summary['deaths'])} changes ({moments}); wrong after them: "
        f"{len(summary['problems'])}",
        summary["problems"],
    )


def flip(directory: Path, flips: int) -> Outcome:
    """Flip bits of stored versions."""
    found = flip_bits(directory / "store", flips)
    return Outcome(f"{flips} bits flipped, {found} found at load", [] if found == flips else ["some were not found"])


def ask_hostile(directory: Path, names: int) -> Outcome:
    """Ask for names that break paths, under an audit hook."""
    outside = ask_for_hostile_names(directory, names, OpenedPaths())
    return Outcome(f"{names} hostile names asked for; paths opened outside the store: {len(outside)}", outside)


def step(_: Path, steps: int) -> Outcome:
    """Do this and that with two registries over one store, beside a model of it."""
    made = run_machines(steps)
    return Outcome(f"{made} steps of the stateful test; the model and the store agree after each", [])


def _summary_of(module: str, *arguments: object) -> Any:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def main(arguments: list[str]) -> int:
    """Make the attacks that are asked for, one after the other. Returns the exit code."""
    asked = _parsed(arguments)
    attacks: list[Callable[[Path], Outcome]] = []
    if asked.kills:
        attacks.append(lambda directory: kill_writers(directory, asked.kills, asked.seed))
    if asked.every_call:
        attacks.append(lambda directory: kill_at_every_call(directory, "before,after"))
    if asked.flips:
        attacks.append(lambda directory: flip(directory, asked.flips))
    if asked.names:
        attacks.append(lambda directory: ask_hostile(directory, asked.names))
    if asked.steps:
        attacks.append(lambda directory: step(directory, asked.steps))
    outcomes = [_made(attack) for attack in attacks]
    return 1 if any(outcome.problems for outcome in outcomes) else 0


def _made(attack: Callable[[Path], Outcome]) -> Outcome:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as directory, mock.patch("os.fsync"):  # only a power cut would show it
        outcome = attack(Path(directory))
    sys.stdout.write(f"{outcome.done} ({time.monotonic() - begun:.0f} s)\n")
    sys.stdout.writelines(f"  {problem}\n" for problem in outcome.problems)
    sys.stdout.flush()
    return outcome


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.adapters.store_attacks", description=__doc__)
    parser.add_argument("--kills", type=int, default=0, help="writers to kill at random moments, as 1000")
    parser.add_argument("--every-call", action="store_true", help="kill a writer at every system call of every change")
    parser.add_argument("--flips", type=int, default=0, help="bits to flip, as 10000")
    parser.add_argument("--names", type=int, default=0, help="hostile names to ask for, as 100000")
    parser.add_argument("--steps", type=int, default=0, help="steps of the stateful test, as 100000")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which writers are killed")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    logging.getLogger("adapters").setLevel(logging.ERROR)  # the store warns of all that it finds
    sys.exit(main(sys.argv[1:]))
