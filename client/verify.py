"""Reads adapters whole, replays their probes, and says what is wrong with them. Changes nothing in a store."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.base_model import BaseModel
from adapters.base_shapes import BaseShapes
from adapters.errors import AdapterError
from adapters.files import AdapterFiles, read_adapter_directory
from adapters.records import NameRecord
from adapters.store import AdapterStore
from adapters.weights import Adapter, check_compatible, read_adapter
from client.findings import Findings, Replayed


@dataclass(frozen=True, slots=True)
class _Base:
    """The base model that adapters are held against."""

    model: BaseModel
    shapes: BaseShapes


def verify_store(
    store: AdapterStore, *, name: str | None, base: BaseModel | None, say: Callable[[str], None]
) -> Findings:
    """Check one adapter or all of them: digest, format, finite values; with `base` also whether they belong to it and
    have its shapes, and the probes of the current versions.

    Says one line for each version and each damaged record. Raises AdapterNotFound, StoreFailure when the record of
    `name` is damaged, BaseModelError.
    """
    whom = None if base is None else _Base(base, BaseShapes.of(base.path))
    if name is not None:
        return _gathered([_verify_name(store, store.record(name), whom, say)])
    damaged = store.damaged_records()
    for entry in damaged:
        say(f"{entry.name}: WRONG: {entry.problem}")
    named = [_verify_name(store, record, whom, say) for record in store.names()]
    return _gathered([Findings(len(damaged)), *named])


def verify_directory(path: Path, *, base: BaseModel | None, say: Callable[[str], None]) -> Findings:
    """The same of the adapter in a directory, which need not be published."""
    whom = None if base is None else _Base(base, BaseShapes.of(base.path))
    try:
        files = read_adapter_directory(path)
        adapter = read_adapter(path.resolve().name, files)
        _check_base(adapter, whom)
    except AdapterError as error:
        say(f"{path}: WRONG: {error}")
        return Findings(1)
    say(_whole(str(path), whom))
    return Findings(0, list(_replayed(str(path), adapter, files, whom)))


def _gathered(findings: Sequence[Findings]) -> Findings:
    return Findings(sum(one.num_wrong for one in findings), [line for one in findings for line in one.replayed])


def _verify_name(store: AdapterStore, record: NameRecord, base: _Base | None, say: Callable[[str], None]) -> Findings:
    problems = 0
    replayed: list[Replayed] = []
    for version in record.versions:
        label = f"{record.name}@{version.digest[:12]}"
        try:
            adapter = store.read(record.name, version.digest)
            _check_base(adapter, base)
            files = read_adapter_directory(store.path_of(version.digest))
        except AdapterError as error:
            problems += 1
            say(f"{label}: WRONG: {error}")
        else:
            say(_whole(label, base))
            if version.digest == record.current:
                replayed.extend(_replayed(label, adapter, files, base))
    return Findings(problems, replayed)


def _check_base(adapter: Adapter, base: _Base | None) -> None:
    if base is not None:
        check_compatible(adapter.manifest, base.model.identity)
        base.shapes.check(adapter.injection)


def _whole(label: str, base: _Base | None) -> str:
    return f"{label}: whole" + (f", belongs to {base.model.name}" if base is not None else "")


def _replayed(label: str, adapter: Adapter, files: AdapterFiles, base: _Base | None) -> Iterator[Replayed]:
    if base is not None:
        from client.replay import replay  # peft takes seconds to import

        yield Replayed(label, replay(adapter, files, base.model))
