"""What stays in memory: the books under random operations, against a plain list that does the same the slow way."""

import random

from adapters.residency import ResidentAdapters
from adapters.weights import Adapter, read_adapter
from tests.adapters.making import adapter_files

BUDGET = 400


def _adapters() -> list[Adapter]:
    """Of 16 to 128 bytes each."""
    return [
        read_adapter("any", adapter_files(seed=number, num_virtual_tokens=1 + number % 8, width=4))
        for number in range(24)
    ]


def test_the_books_agree_under_random_operations() -> None:
    rng = random.Random(4)
    adapters = {adapter.manifest.digest: adapter for adapter in _adapters()}
    sizes = {digest: adapter.injection.num_bytes for digest, adapter in adapters.items()}
    resident = ResidentAdapters(budget_bytes=BUDGET)
    pins: list[str] = []
    for _ in range(5000):
        digest = rng.choice(list(adapters))
        operation = rng.random()
        if operation < 0.3:
            resident.keep(adapters[digest])
            loose = [other for other in resident.digests() if other not in pins]
            assert digest in resident
            assert resident.num_bytes <= BUDGET or loose in ([], [digest])
        elif operation < 0.7:
            assert (resident.get(digest) is not None) == (digest in resident)
        elif operation < 0.8:
            resident.drop(digest)
            assert digest not in resident
        elif operation < 0.9 and len(pins) < 5:
            pins.append(digest)
            resident.pin(digest)
        elif pins:
            resident.unpin(pins.pop(rng.randrange(len(pins))))
        assert len(set(resident.digests())) == len(resident.digests())
        assert resident.num_bytes == sum(sizes[held] for held in resident.digests())


def test_two_pins_of_one_content_are_two() -> None:
    first, second = _adapters()[:2]
    resident = ResidentAdapters(budget_bytes=1)
    for _ in range(2):
        resident.pin(first.manifest.digest)
    resident.keep(first)
    resident.unpin(first.manifest.digest)
    resident.keep(second)
    assert first.manifest.digest in resident
    resident.unpin(first.manifest.digest)
    resident.keep(second)
    assert resident.digests() == [second.manifest.digest]
