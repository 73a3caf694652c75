"""A name's record: how it changes, how its traffic is split, and what its file says."""

import json

import pytest

from adapters.errors import AdapterNotFound, CanaryInvalid, StoreFailure
from adapters.records import NameRecord, Version, record_from_json, record_to_json

OLD, NEW, OTHER = "a" * 64, "b" * 64, "c" * 64
USERS = [f"user-{number}" for number in range(20_000)]


def record() -> NameRecord:
    return NameRecord(name="support", current=OLD, versions=tuple(Version(digest=d, created=1) for d in (OLD, NEW)))


def share(split: NameRecord, digest: str) -> set[str]:
    return {user for user in USERS if split.digest_for(user) == digest}


@pytest.mark.parametrize("percent", [1, 5, 50, 99])
def test_a_canary_answers_its_percentage_of_users_and_each_user_alike(percent: int) -> None:
    split = record().with_canary("bbbbbb", percent)
    chosen = share(split, NEW)
    spread = 4 * (len(USERS) * percent / 100 * (1 - percent / 100)) ** 0.5
    assert abs(len(chosen) - len(USERS) * percent / 100) < spread
    assert share(split, NEW) == chosen
    assert len(chosen) + len(share(split, OLD)) == len(USERS)
    assert split.digest_for(None) == OLD


def test_a_growing_canary_keeps_its_users_and_names_draw_apart() -> None:
    small, large = (share(record().with_canary(NEW, percent), NEW) for percent in (5, 20))
    assert small < large
    other = record().model_copy(update={"name": "sales"}).with_canary(NEW, 5)
    assert len(share(other, NEW) & small) < len(small) / 2


def test_publishing_and_rolling_back_end_a_canary() -> None:
    split = record().with_canary(NEW, 5)
    for changed in (
        split.with_version(Version(digest=OTHER, created=2)),
        split.with_version(Version(digest=OLD, created=2)),
        split.rolled_back(NEW),
        split.rolled_back(OLD),
        split.without_canary(),
    ):
        assert changed.canary is None
        assert len({changed.digest_for(user) for user in USERS[:500]}) == 1
    assert split.model_copy(update={"pinned": True}).canary == split.canary


def test_what_is_no_canary_is_refused() -> None:
    with pytest.raises(CanaryInvalid, match="already"):
        record().with_canary(OLD, 5)
    with pytest.raises(AdapterNotFound):
        record().with_canary("cccccc", 5)
    for percent in (0, 100, -1):
        with pytest.raises(CanaryInvalid, match="1 to 99"):
            record().with_canary(NEW, percent)


def test_a_record_without_a_canary_is_written_as_before_there_were_any() -> None:
    written = json.loads(record_to_json(record()))
    assert set(written["record"]) == {"name", "current", "versions", "pinned"}
    assert record_from_json("support", record_to_json(record())) == record()
    split = record().with_canary(NEW, 5)
    assert record_from_json("support", record_to_json(split)) == split


def test_where_a_version_was_fetched_from_is_kept() -> None:
    fetched = record().with_version(Version(digest=OTHER, created=2, source="hf://org/repo@c0ffee"))
    assert record_from_json("support", record_to_json(fetched)) == fetched
    versions = json.loads(record_to_json(fetched))["record"]["versions"]
    assert ["source" in version for version in versions] == [False, False, True]


@pytest.mark.parametrize("canary", [{"digest": OLD, "percent": 5}, {"digest": OTHER, "percent": 5}, {"digest": NEW}])
def test_a_record_with_an_impossible_canary_is_damaged(canary: dict[str, object]) -> None:
    written = json.loads(record_to_json(record()))
    written["record"]["canary"] = canary
    with pytest.raises(StoreFailure, match="damaged"):
        record_from_json("support", json.dumps(written).encode())
