"""The table of errors: complete, and telling nothing of what is inside."""

import errno

import pytest

from adapters.errors import AdapterDamaged, AdapterError, AdapterInvalid, AdapterTooLarge, ChatFormatError, StoreFailure
from server.engine.errors import (
    CacheTooSmall,
    EngineDead,
    EngineError,
    ModelUnsupported,
    NativeUnavailable,
    SequenceFailed,
)
from server.error_bodies import error_body
from server.error_table import wording_of
from server.errors import RequestRefused

AT_START_ONLY = {NativeUnavailable, CacheTooSmall, ModelUnsupported}


def kinds_below(kind: type[Exception]) -> set[type[Exception]]:
    """Every exception type under `kind`, at any depth."""
    return {deeper for child in kind.__subclasses__() for deeper in {child, *kinds_below(child)}}


def test_every_error_of_the_floors_below_has_its_own_entry() -> None:
    kinds = kinds_below(AdapterError) | kinds_below(EngineError) | kinds_below(RequestRefused) | {ChatFormatError}
    for kind in kinds - AT_START_ONLY:
        error = kind("field", "problem") if issubclass(kind, AdapterInvalid) else kind("message")
        assert wording_of(error).code != "internal_error", kind


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("secret"),
        KeyError("secret"),
        SequenceFailed("secret"),
        EngineDead("secret"),
        AdapterDamaged("secret"),
    ],
)
def test_our_own_faults_are_told_by_a_fixed_text(error: Exception) -> None:
    assert wording_of(error).status == 500
    assert "secret" not in error_body(error).model_dump_json()


def test_a_bad_file_is_told_with_its_field() -> None:
    body = error_body(AdapterTooLarge("adapter_model.safetensors", "5 bytes are over the limit of 4")).error
    assert (body.param, body.code) == ("adapter_model.safetensors", "adapter_too_large")
    assert "limit of 4" in body.message


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 507), (errno.EDQUOT, 507), (errno.EIO, 500)])
def test_a_full_disk_has_its_own_status(number: int, status: int) -> None:
    error = StoreFailure("the store cannot be written")
    error.__cause__ = OSError(number, "disk")
    assert wording_of(error).status == status
