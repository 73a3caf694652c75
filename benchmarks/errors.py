"""What can go wrong with a measurement. Knows no server and no flag.

BenchError
├── WrongUsage      flags that mean nothing, a line for each
├── Interrupted     Ctrl-C or SIGTERM; what was measured until then is written
├── ServerFailed    a server did not start, or ended while it was measured
├── SideFailed      a training process ended with an error
└── RequestFailed   one request was refused, broke off, or said another number of tokens than it was asked for
"""


class BenchError(Exception):
    """A measurement cannot be made."""


class WrongUsage(BenchError):
    """Wrong flags; `problems` holds a line for each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Interrupted(BenchError):
    """Ctrl-C or SIGTERM ended the measurement; what was measured until then is written."""


class ServerFailed(BenchError):
    """A server did not start, or ended while it was measured."""


class SideFailed(BenchError):
    """A process that was to train ended with an error."""


class RequestFailed(BenchError):
    """One request was refused, broke off, or said another number of tokens than it was asked for."""
