"""What verifying adapters found. Knows no store, no server and no model."""

from collections.abc import Sequence
from dataclasses import dataclass

from adapters.verification import Verification


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the probes of one version said."""

    label: str
    verification: Verification


@dataclass(frozen=True, slots=True)
class Findings:
    """How many versions and records are wrong, and what probes said, where they were replayed."""

    num_wrong: int
    replayed: Sequence[Replayed] = ()

    @property
    def is_good(self) -> bool:
        return self.num_wrong == 0 and all(one.verification.state != "mismatch" for one in self.replayed)
