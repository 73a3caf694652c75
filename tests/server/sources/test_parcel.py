"""The files of an adapter as they come in: which ones, how large, how far."""

import pytest

from adapters.errors import AdapterInvalid, AdapterTooLarge
from adapters.files import MAX_FILE_BYTES
from server.sources.errors import SourceUnavailable
from server.sources.parcel import FILE_NAMES, Parcel, Progress
from tests.adapters.making import adapter_files

CONFIG, WEIGHTS, MANIFEST, CARD = FILE_NAMES
MAX_WEIGHTS_BYTES = 1 << 26


def test_pieces_become_files_and_are_counted() -> None:
    files = adapter_files(seed=1)
    progress = Progress()
    parcel = Parcel(progress, max_weights_bytes=MAX_WEIGHTS_BYTES)
    parcel.expect({name: len(content) for name, content in files.by_name().items()})
    assert (progress.fetched_bytes, progress.total_bytes) == (0, sum(map(len, files.by_name().values())))
    for name, content in files.by_name().items():
        for start in range(0, len(content), 100):
            parcel.take(name, content[start : start + 100])
    assert parcel.files() == files
    assert progress.fetched_bytes == progress.total_bytes


def test_what_an_adapter_must_have_is_missed_before_anything_comes() -> None:
    for sizes, field in (({WEIGHTS: 1}, CONFIG), ({CONFIG: 1, CARD: 1}, WEIGHTS), ({}, CONFIG)):
        with pytest.raises(AdapterInvalid, match="missing") as error:
            Parcel(Progress(), max_weights_bytes=MAX_WEIGHTS_BYTES).expect(sizes)
        assert error.value.field == field


def test_a_file_over_its_limit_is_refused_by_name_before_anything_comes() -> None:
    for name in FILE_NAMES:
        limit = MAX_WEIGHTS_BYTES if name == WEIGHTS else MAX_FILE_BYTES[name]
        progress = Progress()
        with pytest.raises(AdapterTooLarge, match=f"{limit + 1} bytes are over the limit of {limit}") as error:
            Parcel(progress, max_weights_bytes=MAX_WEIGHTS_BYTES).expect({CONFIG: 1, WEIGHTS: 1} | {name: limit + 1})
        assert (error.value.field, progress.total_bytes) == (name, None)


def test_more_or_fewer_bytes_than_were_said_are_refused() -> None:
    parcel = Parcel(Progress(), max_weights_bytes=MAX_WEIGHTS_BYTES)
    parcel.expect({CONFIG: 3, WEIGHTS: 2})
    parcel.take(CONFIG, b"{}")
    with pytest.raises(SourceUnavailable, match=f"{CONFIG}: the source ended 1 bytes before"):
        parcel.files()
    with pytest.raises(SourceUnavailable, match=f"{CONFIG}: the source gives more"):
        parcel.take(CONFIG, b"xx")
