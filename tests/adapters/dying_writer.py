"""Forks a writer for every system call of every change to a store, and ends it there.

Run as a module, with DIRECTORY MOMENTS CHANGE...; moments are `before`, `after` or both with a comma, and after a call
is before the next one.
Writes one JSON line: the number of deaths of each change, and every problem found. It is a process of its own because
a fork is cheap only where torch is imported and no other thread runs.
"""

import json
import os
import shutil
import sys
from itertools import count
from pathlib import Path
from unittest import mock

import torch

from adapters.errors import AdapterError
from adapters.store import AdapterStore
from tests.adapters.faulty_calls import KILLED, killed_at
from tests.adapters.making import adapter_files
from tests.adapters.store_changes import CHANGES, State, filled_store, litter_of, read_everything, state_of

DAMAGED = "hurt"


def is_killed(root: Path, change: str, number: int, *, is_after: bool) -> bool:
    """Make a change in a process that ends at its Nth call; False where the change is made before that."""
    child = os.fork()
    if child == 0:
        try:
            store = AdapterStore(root)
            with killed_at(number, is_after=is_after):
                CHANGES[change](store)
                os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED), f"{change} failed by itself"
    return code == KILLED


def problems_after(root: Path, before: State, after: State) -> list[str]:
    """What is wrong with a store whose writer has died: at once, after a repair, and with the next writer."""
    problems = []
    try:
        found = state_of(AdapterStore(root))
        if found not in (before, after):
            problems.append(f"neither the old state nor the new one: {found}")
        read_everything(AdapterStore(root), but=DAMAGED)
        restarted = AdapterStore(root)
        restarted.repair()
        if state_of(restarted) != found:
            problems.append("the repair has changed names")
        problems += litter_of(root)
        restarted.publish("next", adapter_files(seed=11))
        restarted.remove("next")
        read_everything(restarted, but=DAMAGED)
    except AdapterError as error:
        problems.append(str(error))
    return problems


def deaths_of(change: str, moments: list[str], scratch: Path, template: Path) -> tuple[int, list[str]]:
    """End the change at every call, at each moment. Returns how often, and what was wrong then."""
    done = scratch / "done"
    shutil.copytree(template, done)
    before = state_of(AdapterStore(done))
    CHANGES[change](AdapterStore(done))
    after = state_of(AdapterStore(done))
    deaths, problems = 0, list[str]()
    for number in count(1):
        for moment in moments:
            root = scratch / f"{number}-{moment}"
            shutil.copytree(template, root)
            if not is_killed(root, change, number, is_after=moment == "after"):
                found = state_of(AdapterStore(root))
                return deaths, problems if found == after else [*problems, f"{change}: acknowledged and lost"]
            deaths += 1
            where = f"{change}, {moment} call {number}"
            problems += [f"{where}: {problem}" for problem in problems_after(root, before, after)]
            shutil.rmtree(root)
    raise AssertionError("a change ends")


def main(directory: Path, moments: list[str], changes: list[str]) -> None:
    """Let each of the changes die everywhere."""
    torch.set_num_threads(1)  # threads of torch would not survive a fork
    template = directory / "template"
    filled_store(template)
    deaths, problems = dict[str, int](), list[str]()
    with mock.patch.object(os, "fsync"):  # only a power cut would show whether it is done
        for number, change in enumerate(changes):
            scratch = directory / str(number)
            scratch.mkdir()
            deaths[change], found = deaths_of(change, moments, scratch, template)
            problems += found
    sys.stdout.write(json.dumps({"deaths": deaths, "problems": problems}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:])
