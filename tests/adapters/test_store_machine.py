"""A store against a simple model of it: whatever is done in whatever order, both say the same."""

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

from adapters.errors import AdapterInUse, AdapterNotFound
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


def _modelled(record: NameRecord) -> ModelledName:
    return ModelledName([version.digest for version in record.versions], record.current, record.pinned)


class StoreMachine(RuleBasedStateMachine):
    """Two registries over one store, as two servers have them; every step goes to one of them."""

    def __init__(self) -> None:
        super().__init__()
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
        known.current = known.versions[at - 1]
        assert self._registries[server].rollback(name).current == known.current

    @rule(server=st.integers(0, 1), name=NAMES, seed=SEEDS)
    def roll_back_to(self, server: int, name: str, seed: int) -> None:
        digest, _ = content(seed)
        known = self._names.get(self._aliases.get(name, name))
        if known is None or digest not in known.versions:
            with pytest.raises(AdapterNotFound):
                self._registries[server].rollback(name, digest[:10])
            return
        known.current = digest
        assert self._registries[server].rollback(name, digest[:10]).current == digest

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
        for registry in self._registries:
            store = registry.store
            assert {record.name: record.target for record in store.aliases()} == self._aliases
            assert {record.name: _modelled(record) for record in store.names()} == self._names
        assert set(store.digests()) == set(self._versions())

    def _versions(self) -> Iterator[str]:
        for known in self._names.values():
            yield from known.versions


@pytest.mark.parametrize(
    ("runs", "steps"), [(10, 50), pytest.param(500, 200, marks=pytest.mark.slow)], ids=["short", "100,000 steps"]
)
def test_a_store_is_what_the_model_says(runs: int, steps: int) -> None:
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(max_examples=runs, stateful_step_count=steps, deadline=None, derandomize=True, database=None),
    )
