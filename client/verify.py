"""Reads every version of a store whole and says what is wrong with it. Changes nothing."""

from collections.abc import Callable

from adapters.errors import AdapterError
from adapters.home import home_directory
from adapters.manifest import BaseIdentity
from adapters.records import NameRecord
from adapters.store import AdapterStore


def verify_store(store: AdapterStore, *, name: str | None, base: str | None, say: Callable[[str], None]) -> int:
    """Check one adapter or all of them: digest, format, finite values, and with `base` whether they belong to it.

    Says one line for each version and each damaged record, and returns how many are wrong. Raises AdapterNotFound,
    StoreFailure when the record of `name` is damaged, BaseModelError.
    """
    identity = _identity_of(base) if base is not None else None
    if name is not None:
        return _verify_name(store, store.record(name), identity, say)
    damaged = store.damaged_names()
    for name in damaged:
        say(f"{name}: WRONG: its record is damaged")
    return len(damaged) + sum(_verify_name(store, record, identity, say) for record in store.names())


def _verify_name(
    store: AdapterStore, record: NameRecord, identity: BaseIdentity | None, say: Callable[[str], None]
) -> int:
    from adapters.weights import check_compatible

    problems = 0
    for version in record.versions:
        label = f"{record.name}@{version.digest[:12]}"
        try:
            adapter = store.read(record.name, version.digest)
            if identity is not None:
                check_compatible(adapter.manifest, identity)
        except AdapterError as error:
            problems += 1
            say(f"{label}: WRONG: {error}")
        else:
            say(f"{label}: whole" + (f", belongs to {identity.name}" if identity is not None else ""))
    return problems


def _identity_of(base: str) -> BaseIdentity:
    from adapters.base_model import open_base_model

    return open_base_model(base, home=home_directory()).identity
