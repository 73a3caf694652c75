"""Which names the API gives to adapters: all legal ones, but those that are paths of its own. Knows no route."""

from adapters.errors import AdapterNameInvalid
from adapters.naming import check_name

RESERVED = frozenset({"jobs"})
"""GET /v1/adapters/jobs is a list of jobs, and could not describe an adapter of that name."""


def check_new_name(name: str, base_name: str) -> None:
    """Raises AdapterNameInvalid for a name that no adapter and no alias may be given through this API."""
    check_name(name, base_name=base_name)
    if name in RESERVED:
        raise AdapterNameInvalid(f"name: {name!r} is a path of this API (/v1/adapters/{name})")
