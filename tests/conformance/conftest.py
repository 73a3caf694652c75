"""Fixtures of the conformance suite: two servers on one store, and the record of what was proved on them."""

import json
from collections.abc import Iterator

import pytest

from tests.conformance.clients.proving import KEY, LIMITED_KEY, REQUESTS_PER_MINUTE
from tests.conformance.programs import HERE, ServerName
from tests.conformance.serving import make_store, serving

SEATS = 1
"""Of the narrow server: so many requests are computed, and so many wait."""

Proofs = dict[str, dict[str, list[str]]]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[ServerName, str]]:
    """Addresses: an open server, and a narrow one with keys that is full with two requests."""
    place = tmp_path_factory.mktemp("conformance")
    make_store(place / "store")
    keys = place / "keys.yaml"
    limited = {"name": "limited", "key": LIMITED_KEY, "requests_per_minute": REQUESTS_PER_MINUTE}
    keys.write_text(json.dumps({"keys": [limited]}))
    seats = ("--max-num-seqs", str(SEATS), "--max-num-waiting", str(SEATS))
    narrow = (*seats, "--kv-cache-memory", "128MiB", "--key-file", str(keys))
    with (
        serving(place / "store", place / "open.log", "--kv-cache-memory", "256MiB") as open_url,
        serving(place / "store", place / "narrow.log", *narrow, HOTPROMPT_API_KEYS=KEY) as narrow_url,
    ):
        yield {"open": open_url, "narrow": narrow_url}


@pytest.fixture(scope="session")
def proofs() -> Iterator[Proofs]:
    """What each program proved of each model; written to proved.json beside this file."""
    proofs: Proofs = {}
    yield proofs
    (HERE / "proved.json").write_text(json.dumps(proofs, indent=1) + "\n")
