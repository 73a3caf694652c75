"""Adapters on their way from one store to another, as one file. Knows no registry, and publishes nothing."""

from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.errors import AdapterInvalid
from adapters.files import AdapterFiles
from adapters.manifest import MANIFEST_FILE
from adapters.store import AdapterStore
from adapters.tar_format import read_tar_file
from adapters.weights import read_adapter


class _Labels(BaseModel):
    """What an exported hotprompt.json says beside the maker's own facts; one made elsewhere need not."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str | None = Field(default=None, max_length=63)
    digest: str | None = Field(default=None, max_length=64)


def files_to_export(store: AdapterStore, reference: str) -> AdapterFiles:
    """The files of the version that a reference stands for, under its name: the same wherever it is exported.

    Raises AdapterNotFound, AdapterNameInvalid, StoreFailure, and AdapterDamaged for a version that has changed.
    """
    name, digest = store.resolve(reference)
    adapter, files = store.read_files(name, digest)
    return replace(files, manifest=adapter.manifest.to_json())


def read_exported(path: Path, *, name: str | None) -> tuple[str, AdapterFiles]:
    """An adapter in a tar, and the name it was exported under, unless it is given another one.

    Raises AdapterInvalid, also where the files no longer have the digest that they were exported with.
    """
    files = read_tar_file(path)
    labels = _labels_of(files)
    name = name or labels.name
    if name is None:
        raise AdapterInvalid(MANIFEST_FILE, "says no name: give one with --name")
    if labels.digest not in (None, read_adapter(name, files).manifest.digest):
        raise AdapterInvalid(MANIFEST_FILE, "'digest' is not that of the files, which have changed since the export")
    return name, files


def _labels_of(files: AdapterFiles) -> _Labels:
    if files.manifest is None:
        return _Labels()
    try:
        return _Labels.model_validate_json(files.manifest)
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise AdapterInvalid(MANIFEST_FILE, f"'{field}': {error.errors()[0]['msg']}") from None
