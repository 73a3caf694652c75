"""StoreMachine: a store against a simple model of it. Whatever is done in whatever order, both say the same."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from adapters.errors import AdapterInUse, AdapterNotFound, CanaryInvalid
from adapters.files import AdapterFiles
from adapters.records import NameRecord
from adapters.registry import AdapterRegistry
from adapters.store import AdapterStore
from adapters.weights import read_adapter
from tests.adapters.making import adapter_files, base_identity

NAMES = st.sampled_from(["a", "A", "b.json", "c"])
SEEDS = st.integers(0, 3)


@cache
def content(seed: int) -> tuple[str, AdapterFiles]:
    """An adapter and its digest."""
    files = adapter_files(seed=seed)
    return read_adapter("x", files).manifest.digest, files


@dataclass
class ModelledName:
    """What must be true of a name: its versions, oldest first, and the current one."""

    versions: list[str] = field(default_factory=list)
    current: str = ""
    pinned: bool = False
    canary: tuple[str, int] | None = None


def _modelled(record: NameRecord) -> ModelledName:
    canary = None if record.canary is None else (record.canary.digest, record.canary.percent)
    return ModelledName([version.digest for version in record.versions], record.current, record.pinned, canary)


@dataclass
class StepCount:
    """How many steps all machines of a run have made."""

    steps: int = 0


class StoreMachine(RuleBasedStateMachine):
    """Two registries over one store, as two servers have them; every step goes to one of them."""

    def __init__(self, count: StepCount) -> None:
        super().__init__()
        self._count = count
        self._count.steps -= 1  # what must be true is looked at once before the first step
        self._directory = TemporaryDirectory()
        self._flushing = mock.patch("os.fsync")
        self._flushing.start()
        self._registries = [self._open(), self._open()]
        self._names: dict[str, ModelledName] = {}
        self._aliases: dict[str, str] = {}

    def _open(self) -> AdapterRegistry:
        return AdapterRegistry(AdapterStore(Path(self._directory.name)), base_identity(), budget_bytes=100)

    def teardown(self) -> None:
        self._flushing.stop()
        self._directory.cleanup()

    @rule(server=st.integers(0, 1), name=NAMES, seed=SEEDS)
    def register(self, server: int, name: str, seed: int) -> None:
        digest, files = content(seed)
        if name in self._aliases:
            with pytest.raises(AdapterInUse):
                self._registries[server].publish(name, files)
            return
        assert self._registries[server].publish(name, files).manifest.digest == digest
        known = self._names.setdefault(name, ModelledName())
        known.canary = None
        if known.current != digest:
            known.versions = [version for version in known.versions if version != digest] + [digest]
            known.current = digest

    @rule(server=st.integers(0, 1), name=NAMES)
    def roll_back(self, server: int, name: str) -> None:
        known = self._names.get(self._aliases.get(name, name))
        at = known.versions.index(known.current) if known else 0
        if known is None or at == 0:
            with pytest.raises(AdapterNotFound):
                self._registries[server].rollback(name)
            return
        known.current, known.canary = known.versions[at - 1], None
        assert self._registries[server].rollback(name).current == known.current

    @rule(server=st.integers(0, 1), name=NAMES, seed=SEEDS)
    def roll_back_to(self, server: int, name: str, seed: int) -> None:
        digest, _ = content(seed)
        known = self._names.get(self._aliases.get(name, name))
        if known is None or digest not in known.versions:
            with pytest.raises(AdapterNotFound):
                self._registries[server].rollback(name, digest[:10])
            return
        known.current, known.canary = digest, None
        assert self._registries[server].rollback(name, digest[:10]).current == digest

    @rule(server=st.integers(0, 1), name=NAMES, seed=SEEDS, percent=st.sampled_from([1, 50, 99]))
    def start_a_canary(self, server: int, name: str, seed: int, percent: int) -> None:
        digest, _ = content(seed)
        known = self._names.get(self._aliases.get(name, name))
        store = self._registries[server].store
        if known is None or digest not in known.versions:
            with pytest.raises(AdapterNotFound):
                store.canary(name, digest, percent)
        elif digest == known.current:
            with pytest.raises(CanaryInvalid):
                store.canary(name, digest, percent)
        else:
            store.canary(name, digest, percent)
            known.canary = digest, percent

    @rule(server=st.integers(0, 1), name=NAMES)
    def end_a_canary(self, server: int, name: str) -> None:
        known = self._names.get(self._aliases.get(name, name))
        if known is None:
            with pytest.raises(AdapterNotFound):
                self._registries[server].store.end_canary(name)
            return
        known.canary = None
        assert self._registries[server].store.end_canary(name).canary is None

    @rule(name=NAMES, asker=st.integers(0, 9).map(str))
    def use_as_somebody(self, name: str, asker: str) -> None:
        known = self._names.get(self._aliases.get(name, name))
        if known is None:
            return
        answers = [registry.get(name, asker=asker).injection.digest for registry in self._registries]
        assert answers[0] == answers[1]
        assert answers[0] == known.current or (known.canary is not None and answers[0] == known.canary[0])

    @rule(server=st.integers(0, 1))
    def follow(self, server: int) -> None:
        """What a server does when it sees that the store has changed, here whether it has or not."""
        registry = self._registries[server]
        for name in ("a", "A", "b.json", "c"):
            if name in self._names or name in self._aliases:
                registry.follow(name)
            else:
                with pytest.raises(AdapterNotFound):
                    registry.follow(name)
        registry.free_removed()
        assert registry.pinned_digests() == {known.current for known in self._names.values() if known.pinned}
        there = set(self._versions())
        assert all(digest in there for seed in range(4) if registry.is_resident(digest := content(seed)[0]))

    @rule(server=st.integers(0, 1), name=NAMES, pinned=st.booleans())
    def pin(self, server: int, name: str, pinned: bool) -> None:  # noqa: FBT001  # hypothesis names its arguments
        known = self._names.get(self._aliases.get(name, name))
        if known is None:
            with pytest.raises(AdapterNotFound):
                self._registries[server].pin(name, pinned=pinned)
            return
        known.pinned = pinned
        assert self._registries[server].pin(name, pinned=pinned).pinned == pinned

    @rule(server=st.integers(0, 1), name=NAMES, meant=NAMES)
    def alias(self, server: int, name: str, meant: str) -> None:
        resolved = self._aliases.get(meant, meant)
        if name in self._names:
            with pytest.raises(AdapterInUse):
                self._registries[server].alias(name, meant)
        elif resolved not in self._names:
            with pytest.raises(AdapterNotFound):
                self._registries[server].alias(name, meant)
        else:
            assert self._registries[server].alias(name, meant).target == resolved
            self._aliases[name] = resolved

    @rule(server=st.integers(0, 1), name=NAMES)
    def delete(self, server: int, name: str) -> None:
        if name in self._aliases:
            self._registries[server].remove(name)
            del self._aliases[name]
        elif name not in self._names:
            with pytest.raises(AdapterNotFound):
                self._registries[server].remove(name)
        elif name in self._aliases.values():
            with pytest.raises(AdapterInUse):
                self._registries[server].remove(name)
        else:
            self._registries[server].remove(name)
            del self._names[name]

    @rule(server=st.integers(0, 1), name=NAMES, seed=SEEDS, by_version=st.booleans())
    def use(self, server: int, name: str, seed: int, by_version: bool) -> None:  # noqa: FBT001
        digest, _ = content(seed)
        known = self._names.get(self._aliases.get(name, name))
        expected = known and (digest if by_version and digest in known.versions else known.current)
        reference = f"{name}@{digest}" if by_version else name
        if expected is None or (by_version and expected != digest):
            with pytest.raises(AdapterNotFound):
                self._registries[server].get(reference)
        else:
            assert self._registries[server].get(reference).injection.digest == expected

    @rule(server=st.integers(0, 1))
    def restart(self, server: int) -> None:
        self._registries[server] = self._open()
        self._registries[server].store.repair()
        assert {adapter.manifest.name for adapter in self._registries[server].load_pinned()} == {
            name for name, known in self._names.items() if known.pinned
        }

    @invariant()
    def both_say_what_must_be_true(self) -> None:
        self._count.steps += 1
        for registry in self._registries:
            store = registry.store
            assert {record.name: record.target for record in store.aliases()} == self._aliases
            assert {record.name: _modelled(record) for record in store.names()} == self._names
        assert set(store.digests()) == set(self._versions())

    def _versions(self) -> Iterator[str]:
        for known in self._names.values():
            yield from known.versions


def run_machines(steps: int, *, steps_of_a_run: int = 200) -> int:
    """Let machines make at least as many steps, always the same ones; returns how many they made."""
    count = StepCount()

    class CountedMachine(StoreMachine):
        def __init__(self) -> None:
            super().__init__(count)

    run_state_machine_as_test(
        CountedMachine,
        settings=settings(
            max_examples=-(-steps * 11 // (10 * steps_of_a_run)),  # some runs are shorter
            stateful_step_count=steps_of_a_run,
            deadline=None,
            derandomize=True,
            database=None,
        ),
    )
    return count.steps
