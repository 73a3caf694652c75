"""The store: names, their versions, pins and aliases."""

from pathlib import Path

import pytest

from adapters.errors import (
    AdapterInUse,
    AdapterNotFound,
)
from adapters.files import AdapterFiles
from adapters.store import AdapterStore, read_card
from adapters.verification import Verification, VerificationState
from tests.adapters.making import adapter_files
from tests.tiny import rows_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> AdapterStore:
    return AdapterStore(root)


def publish(store: AdapterStore, name: str, seed: int) -> str:
    return store.publish(name, adapter_files(seed=seed)).manifest.digest


def versions_on_disk(root: Path) -> set[str]:
    return {path.name for path in (root / "versions").iterdir()}


def test_an_empty_store(store: AdapterStore) -> None:
    assert store.names() == []
    assert store.aliases() == []
    for ask in (store.record, store.resolve, store.remove, store.rollback):
        with pytest.raises(AdapterNotFound, match="'a'"):
            ask("a")


def test_publish_and_read(store: AdapterStore) -> None:
    published = store.publish("a", adapter_files())
    assert store.resolve("a") == ("a", published.manifest.digest)
    again = store.read("a", published.manifest.digest)
    assert again.manifest == published.manifest
    assert rows_of(again).equal(rows_of(published))


def test_another_process_sees_what_was_published(root: Path, store: AdapterStore) -> None:
    digest = publish(store, "a", 0)
    assert AdapterStore(root).resolve("a") == ("a", digest)


def test_versions_of_a_name(store: AdapterStore) -> None:
    first, second = publish(store, "a", 1), publish(store, "a", 2)
    record = store.record("a")
    assert [version.digest for version in record.versions] == [first, second]
    assert record.current == second
    assert record.created == record.versions[1].created
    assert store.resolve(f"a@{first[:6]}") == ("a", first)
    assert store.resolve(f"a@{second}") == ("a", second)
    with pytest.raises(AdapterNotFound, match="no version"):
        store.resolve("a@000000")


def test_publishing_the_current_version_again_changes_nothing(root: Path, store: AdapterStore) -> None:
    publish(store, "a", 1)
    before = (root / "names" / "a.json").stat().st_mtime_ns
    publish(store, "a", 1)
    assert len(store.record("a").versions) == 1
    assert (root / "names" / "a.json").stat().st_mtime_ns == before


def test_publishing_an_older_version_again_makes_it_the_newest(store: AdapterStore) -> None:
    first, second = publish(store, "a", 1), publish(store, "a", 2)
    publish(store, "a", 1)
    assert [version.digest for version in store.record("a").versions] == [second, first]
    assert store.rollback("a").current == second


def test_rollback(store: AdapterStore) -> None:
    digests = [publish(store, "a", seed) for seed in range(3)]
    assert store.rollback("a").current == digests[1]
    assert store.rollback("a").current == digests[0]
    with pytest.raises(AdapterNotFound, match="no version before"):
        store.rollback("a")
    assert store.rollback("a", digests[2][:8]).current == digests[2]
    with pytest.raises(AdapterNotFound, match="no version"):
        store.rollback("a", "0123456789")
    assert store.resolve("a") == ("a", digests[2])


def test_names_differ_by_case_and_may_look_like_files(store: AdapterStore) -> None:
    digests = {name: publish(store, name, seed) for seed, name in enumerate(["a", "A", "x", "x.json", "x.json.json"])}
    assert {record.name: record.current for record in store.names()} == digests


def test_one_content_under_two_names_is_kept_once(root: Path, store: AdapterStore) -> None:
    digest = publish(store, "a", 1)
    assert publish(store, "b", 1) == digest
    store.remove("a")
    assert store.resolve("b") == ("b", digest)
    assert store.read("b", digest).manifest.name == "b"
    store.remove("b")
    assert versions_on_disk(root) == set()


def test_remove_forgets_all_versions(root: Path, store: AdapterStore) -> None:
    publish(store, "a", 1)
    publish(store, "a", 2)
    keep = publish(store, "b", 3)
    store.remove("a")
    assert [record.name for record in store.names()] == ["b"]
    assert versions_on_disk(root) == {keep}
    assert list((root / "tmp").iterdir()) == []
    with pytest.raises(AdapterNotFound):
        store.read("a", "0" * 64)


def test_pin(store: AdapterStore) -> None:
    publish(store, "a", 1)
    assert store.pin("a", pinned=True).pinned
    publish(store, "a", 2)
    assert store.record("a").pinned
    assert not store.pin("a", pinned=False).pinned


def test_the_card_is_kept_and_not_part_of_the_digest(store: AdapterStore) -> None:
    files = adapter_files()
    with_card = AdapterFiles(files.config, files.weights, card="# Karte ü".encode())
    digest = store.publish("a", with_card).manifest.digest
    assert digest == store.publish("b", files).manifest.digest
    assert read_card(store, digest) == "# Karte ü"
    assert read_card(store, publish(store, "c", 5)) is None


def test_an_alias_follows_its_name(store: AdapterStore) -> None:
    publish(store, "a", 1)
    assert store.alias("prod", "a").target == "a"
    second = publish(store, "a", 2)
    assert store.resolve("prod") == ("a", second)
    assert store.record("prod").name == "a"
    assert [alias.name for alias in store.aliases()] == ["prod"]
    assert [record.name for record in store.names()] == ["a"]


def test_an_alias_of_one_version_stays_there(store: AdapterStore) -> None:
    first = publish(store, "a", 1)
    second = publish(store, "a", 2)
    assert store.alias("prod", f"a@{first[:6]}").target == f"a@{first}"
    assert store.resolve("prod") == ("a", first)
    assert store.resolve(f"prod@{second[:6]}") == ("a", second)


def test_an_alias_moves_and_is_never_a_chain(store: AdapterStore) -> None:
    publish(store, "a", 1)
    publish(store, "b", 2)
    store.alias("prod", "a")
    store.alias("prod", "b")
    assert store.alias("live", "prod").target == "b"
    store.alias("prod", "a")
    assert store.resolve("live")[0] == "b"
    assert store.alias("prod", "prod").target == "a"


def test_an_alias_and_a_name_do_not_take_each_others_place(store: AdapterStore) -> None:
    publish(store, "a", 1)
    store.alias("prod", "a")
    with pytest.raises(AdapterInUse, match="'a' is the name of an adapter"):
        store.alias("a", "prod")
    with pytest.raises(AdapterInUse, match="'prod' is an alias"):
        publish(store, "prod", 2)
    with pytest.raises(AdapterNotFound):
        store.alias("x", "nothing")
    with pytest.raises(AdapterNotFound):
        store.alias("x", "a@000000")


def test_a_name_that_an_alias_stands_for_is_not_removed(root: Path, store: AdapterStore) -> None:
    digest = publish(store, "a", 1)
    store.alias("prod", f"a@{digest}")
    with pytest.raises(AdapterInUse, match="the alias 'prod' stands for 'a'"):
        store.remove("a")
    assert store.resolve("prod") == ("a", digest)
    store.remove("prod")
    assert versions_on_disk(root) == {digest}
    store.remove("a")
    assert store.names() == []


def _verification(state: VerificationState) -> Verification:
    return Verification(state=state, engine="float32", checked=1)


def test_what_probes_said_is_kept_with_the_version(root: Path, store: AdapterStore) -> None:
    first = store.publish("a", adapter_files(seed=1), verification=_verification("verified")).manifest.digest
    second = publish(store, "a", 2)
    record = AdapterStore(root).record("a")
    assert record.version(first).verification == _verification("verified")
    assert record.version(second).verification is None
    store.note_verification("a", second, _verification("mismatch"))
    assert AdapterStore(root).record("a").version(second).verification == _verification("mismatch")
    with pytest.raises(AdapterNotFound):
        store.note_verification("a", "0" * 64, _verification("verified"))


def test_publishing_the_same_content_again_says_what_its_probes_say_now(store: AdapterStore) -> None:
    digest = store.publish("a", adapter_files(), verification=_verification("mismatch")).manifest.digest
    store.publish("a", adapter_files(), verification=_verification("verified"))
    store.publish("a", adapter_files())  # by somebody who did not replay them
    assert store.record("a").version(digest).verification == _verification("verified")
    assert len(store.record("a").versions) == 1
