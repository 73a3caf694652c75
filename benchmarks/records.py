"""Record: one server in one round of one scenario; and the order in which servers take their turns."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.samples import Sample
from benchmarks.servers import Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What one run gave. It is void when a request failed, or when the server did; `failures` say why."""

    scenario: str
    server: str
    round: int
    ready_seconds: float | None
    samples: tuple[Sample, ...]
    failures: tuple[str, ...]

    @property
    def is_void(self) -> bool:
        return bool(self.failures)

    def sample(self, arm: str, clients: int) -> Sample | None:
        """The sample of one arm at one number of clients, if it was measured."""
        return next((each for each in self.samples if (each.arm, each.clients) == (arm, clients)), None)


def in_turn(servers: Sequence[Server], rounds: int) -> list[tuple[int, Server]]:
    """`(round, server)` in the order A B A B: what changes on the machine over time meets all servers alike."""
    return [(number, server) for number in range(1, rounds + 1) for server in servers]
