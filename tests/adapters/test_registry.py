"""What a server holds in memory: by digest, least recently used out first, pinned ones stay."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adapters.errors import AdapterIncompatible, AdapterInUse, AdapterNameInvalid, AdapterNotFound, StoreFailure
from adapters.manifest import ManifestDraft
from adapters.records import NameRecord
from adapters.registry import AdapterRegistry
from adapters.store import AdapterStore
from adapters.tensor_file import WEIGHTS_FILE
from adapters.weights import Adapter
from tests.adapters.making import WIDTH, adapter_files, base_identity

ROWS_BYTES = 3 * WIDTH * 4


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "store")


@pytest.fixture
def registry(store: AdapterStore) -> AdapterRegistry:
    """Holds two adapters."""
    return AdapterRegistry(store, base_identity(), budget_bytes=2 * ROWS_BYTES)


def resident(registry: AdapterRegistry, *names: str) -> list[str]:
    return [name for name in names if registry.is_resident(registry.store.resolve(name)[1])]


def publish_all(store: AdapterStore, *names: str) -> None:
    for seed, name in enumerate(names):
        store.publish(name, adapter_files(seed=seed))


def test_get_follows_the_name(store: AdapterStore, registry: AdapterRegistry) -> None:
    first = registry.publish("a", adapter_files(seed=1))
    assert registry.get("a") is registry.get("a")
    second = store.publish("a", adapter_files(seed=2))  # as another process would
    assert registry.get("a").manifest.digest == second.manifest.digest
    assert registry.get(f"a@{first.manifest.digest[:8]}").injection is first.injection
    with pytest.raises(AdapterNotFound):
        registry.get("b")
    with pytest.raises(AdapterNameInvalid):
        registry.get("../a")


def test_the_least_recently_used_leaves(store: AdapterStore, registry: AdapterRegistry) -> None:
    publish_all(store, "a", "b", "c")
    for name in ("a", "b", "a", "c"):
        registry.get(name)
    assert resident(registry, "a", "b", "c") == ["a", "c"]
    registry.get("b")
    assert resident(registry, "a", "b", "c") == ["b", "c"]


def test_the_newest_stays_even_over_the_budget(store: AdapterStore) -> None:
    registry = AdapterRegistry(store, base_identity(), budget_bytes=1)
    publish_all(store, "a", "b")
    assert registry.get("a").injection.num_bytes == ROWS_BYTES
    registry.get("b")
    assert resident(registry, "a", "b") == ["b"]


def test_pinned_adapters_stay(store: AdapterStore, registry: AdapterRegistry) -> None:
    publish_all(store, "a", "b", "c", "d")
    registry.pin("a", pinned=True)
    for name in ("b", "c", "d"):
        registry.get(name)
    assert resident(registry, "a", "b", "c", "d") == ["a", "d"]
    registry.pin("a", pinned=False)
    registry.get("b")
    assert resident(registry, "a", "b", "c", "d") == ["b", "d"]


def test_a_pin_follows_the_name_to_its_new_version(store: AdapterStore, registry: AdapterRegistry) -> None:
    publish_all(store, "b", "c")
    old = registry.publish("a", adapter_files(seed=7)).manifest.digest
    registry.pin("a", pinned=True)
    new = registry.publish("a", adapter_files(seed=8)).manifest.digest
    registry.get("b")
    registry.get("c")
    assert (registry.is_resident(old), registry.is_resident(new)) == (False, True)
    assert registry.rollback("a").current == old
    registry.get("a")
    registry.get("b")
    registry.get("c")
    assert (registry.is_resident(old), registry.is_resident(new)) == (True, False)


def test_a_pin_by_another_process_is_noticed_at_the_next_use(store: AdapterStore, registry: AdapterRegistry) -> None:
    publish_all(store, "a", "b", "c")
    registry.get("a")
    store.pin("a", pinned=True)
    for name in ("a", "b", "c"):
        registry.get(name)
    assert resident(registry, "a", "b", "c") == ["a", "c"]
    store.pin("a", pinned=False)
    for name in ("a", "b", "c"):
        registry.get(name)
    assert resident(registry, "a", "b", "c") == ["b", "c"]


def test_load_pinned_leaves_out_what_cannot_be_loaded(
    store: AdapterStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish_all(store, "damaged", "good", "unpinned")
    store.publish("wide", adapter_files(width=8))
    for name in ("damaged", "good", "wide"):
        store.pin(name, pinned=True)
    (tmp_path / "store" / "versions" / store.resolve("damaged")[1] / WEIGHTS_FILE).write_bytes(b"")
    loaded = AdapterRegistry(store, base_identity()).load_pinned()
    assert [adapter.manifest.name for adapter in loaded] == ["good"]
    assert sum("cannot be loaded" in record.message for record in caplog.records) == 2


def test_a_damaged_version_is_an_error_of_its_own_name_only(
    store: AdapterStore, registry: AdapterRegistry, tmp_path: Path
) -> None:
    publish_all(store, "a", "b")
    path = tmp_path / "store" / "versions" / store.resolve("a")[1] / WEIGHTS_FILE
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    for _ in range(2):
        with pytest.raises(StoreFailure, match="damaged"):
            registry.get("a")
    assert registry.get("b").manifest.name == "b"
    path.write_bytes(content)
    assert registry.get("a").manifest.name == "a"


def test_one_content_under_two_names_is_in_memory_once_and_answers_to_both(registry: AdapterRegistry) -> None:
    first = registry.publish("a", adapter_files(seed=1))
    second = registry.publish("b", adapter_files(seed=1))
    assert [registry.get(name).manifest.name for name in ("a", "b")] == ["a", "b"]
    assert registry.get("a").injection is registry.get("b").injection
    assert first.manifest.digest == second.manifest.digest


def test_another_base_is_refused_and_nothing_is_published(store: AdapterStore, registry: AdapterRegistry) -> None:
    other = ManifestDraft(base=base_identity(fingerprint="0" * 64)).model_dump_json().encode()
    for files in (adapter_files(width=8), adapter_files(manifest=other)):
        with pytest.raises(AdapterIncompatible):
            registry.publish("a", files)
    assert store.names() == []
    store.publish("a", adapter_files(width=8))
    with pytest.raises(AdapterIncompatible):
        registry.get("a")


def test_the_name_of_the_base_is_taken(registry: AdapterRegistry) -> None:
    with pytest.raises(AdapterNameInvalid, match="base model's own name"):
        registry.publish("tiny", adapter_files())
    registry.publish("a", adapter_files())
    with pytest.raises(AdapterNameInvalid, match="base model's own name"):
        registry.alias("tiny", "a")
    registry.alias("prod", "a")
    assert registry.get("prod").manifest.name == "a"


def test_remove_frees_the_memory(registry: AdapterRegistry) -> None:
    digest = registry.publish("a", adapter_files(seed=1)).manifest.digest
    registry.publish("b", adapter_files(seed=1))
    registry.remove("a")
    assert registry.is_resident(digest), "b still has it"
    registry.alias("prod", "b")
    with pytest.raises(AdapterInUse):
        registry.remove("b")
    registry.remove("prod")
    registry.remove("b")
    assert not registry.is_resident(digest)
    with pytest.raises(AdapterNotFound):
        registry.get("b")


class CountingStore(AdapterStore):
    """Counts the reads, and makes each one slow enough to meet the others."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads = 0

    def read(self, name: str, digest: str) -> Adapter:
        self.reads += 1
        time.sleep(0.05)
        return super().read(name, digest)


def test_sixteen_threads_load_an_adapter_once(tmp_path: Path) -> None:
    store = CountingStore(tmp_path / "store")
    publish_all(store, "a", "b")
    registry = AdapterRegistry(store, base_identity())
    store.reads = 0
    start = threading.Barrier(16)

    def get(name: str) -> Adapter:
        start.wait()
        return registry.get(name)

    with ThreadPoolExecutor(16) as pool:
        adapters = list(pool.map(get, ["a", "b"] * 8))
    assert store.reads == 2
    assert len({id(adapter) for adapter in adapters}) == 2


def test_threads_that_publish_get_and_remove_at_once(tmp_path: Path) -> None:
    """Every answer is a version that was published under that name, or that there is none."""
    store = AdapterStore(tmp_path / "store")
    registry = AdapterRegistry(store, base_identity(), budget_bytes=ROWS_BYTES)
    published: set[str] = {registry.publish("a", adapter_files(seed=seed)).manifest.digest for seed in range(4)}

    def write(seed: int) -> None:
        for step in range(6):
            registry.publish("a", adapter_files(seed=(seed + step) % 4))
            if step % 3 == 2:
                try:
                    registry.remove("a")
                except AdapterNotFound:
                    continue

    def read(_: int) -> set[str]:
        seen = set()
        for _step in range(40):
            try:
                seen.add(registry.get("a").manifest.digest)
            except AdapterNotFound:
                continue
        return seen

    with ThreadPoolExecutor(6) as pool:
        writers = [pool.submit(write, seed) for seed in range(2)]
        readers = [pool.submit(read, seed) for seed in range(4)]
        for writer in writers:
            writer.result()
        assert set().union(*(reader.result() for reader in readers)) <= published


class _RemovedWhileRead(AdapterStore):
    """A store whose name is removed by another process after its record, or its files, were read."""

    removes_after_lookup = False
    removes_after_read = False

    def lookup(self, text: str, *, asker: str | None = None) -> tuple[NameRecord, str]:
        found = super().lookup(text, asker=asker)
        if self.removes_after_lookup:
            self.removes_after_lookup = False
            self.remove(text)
        return found

    def read(self, name: str, digest: str) -> Adapter:
        adapter = super().read(name, digest)
        if self.removes_after_read:
            self.removes_after_read = False
            self.remove(name)
        return adapter


def test_what_is_removed_while_it_is_loaded_is_not_kept(tmp_path: Path) -> None:
    store = _RemovedWhileRead(tmp_path / "store")
    registry = AdapterRegistry(store, base_identity())
    store.publish("a", adapter_files(seed=1))
    store.pin("a", pinned=True)
    store.removes_after_read = True
    assert registry.get("a").manifest.name == "a"
    assert (registry.num_bytes, len(registry.pinned_digests())) == (0, 1)
    registry = AdapterRegistry(store, base_identity())
    store.publish("a", adapter_files(seed=1))
    store.pin("a", pinned=True)
    store.removes_after_lookup = True
    with pytest.raises(AdapterNotFound):
        registry.get("a")
    assert (registry.num_bytes, registry.pinned_digests()) == (0, set())


def test_it_follows_what_others_do_with_a_name(store: AdapterStore) -> None:
    """Each change is made as another process would make it."""
    registry = AdapterRegistry(store, base_identity())
    first = store.publish("a", adapter_files(seed=1)).manifest.digest
    assert [adapter.manifest.digest for adapter in registry.follow("a")] == [first]
    assert registry.follow("a") == [], "it is here already"
    second = store.publish("a", adapter_files(seed=2)).manifest.digest
    assert [adapter.manifest.digest for adapter in registry.follow("a")] == [second]
    store.pin("a", pinned=True)
    assert [adapter.manifest.digest for adapter in registry.follow("a")] == [second], "to be pinned in the KV cache"
    assert registry.pinned_digests() == {second}
    store.alias("b", "a")
    assert registry.follow("b") == []
    store.rollback("a")
    registry.follow("a")
    assert registry.pinned_digests() == {first}
    store.remove("b")
    store.remove("a")
    with pytest.raises(AdapterNotFound):
        registry.follow("a")
    assert registry.pinned_digests() == set()
    registry.free_removed()
    assert registry.num_bytes == 0


def test_what_nobody_has_asked_for_takes_only_free_memory(store: AdapterStore, registry: AdapterRegistry) -> None:
    publish_all(store, "a", "b", "c", "d")
    for name in ("a", "b"):
        registry.get(name)
    assert registry.follow("c") == []
    assert resident(registry, "a", "b", "c", "d") == ["a", "b"]
    store.pin("d", pinned=True)
    assert [adapter.manifest.name for adapter in registry.follow("d")] == ["d"]
    assert resident(registry, "a", "b", "c", "d") == ["b", "d"]


def test_a_canary_of_another_process_is_brought_into_memory(store: AdapterStore) -> None:
    registry = AdapterRegistry(store, base_identity())
    first = store.publish("a", adapter_files(seed=1)).manifest.digest
    second = store.publish("a", adapter_files(seed=2)).manifest.digest
    store.canary("a", first, 5)
    assert {adapter.manifest.digest for adapter in registry.follow("a")} == {first, second}


def test_what_is_in_quarantine_stays_in_memory(store: AdapterStore, registry: AdapterRegistry) -> None:
    digest = registry.publish("a", adapter_files()).manifest.digest
    (store.path_of(digest) / WEIGHTS_FILE).write_bytes(b"")
    assert store.quarantine_if_damaged(digest)
    registry.free_removed()
    assert registry.get("a").manifest.digest == digest
