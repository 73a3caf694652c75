"""What can be wrong with a training run. Knows no exit codes: the command line chooses those.

TrainingError
├── ConfigError      keys of the configuration are missing, unknown or have illegal values
├── DataError        a data file cannot be read, or has bad rows
├── ServerRefused    a running server says that what it is asked is wrong
├── NothingTrained   stopped before the first optimiser step, so there is nothing to save
└── PublishFailed    trained and in the store, and not registered where else it should be

A run also raises what it stands on: BaseModelError, AdapterNameInvalid and StoreFailure of `adapters`.
"""

from collections.abc import Sequence

_MAX_LISTED = 10


class TrainingError(Exception):
    """Anything wrong with a training run."""


class ConfigError(TrainingError):
    """Every mistake of a configuration at once; each of `problems` names its key."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(_listed("mistakes in the configuration", problems, limit=len(problems)))
        self.problems = tuple(problems)


class DataError(TrainingError):
    """Every bad row of a data file at once; each of `problems` names its file, line and field as far as it has them."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(_listed("problems in the data", problems, limit=_MAX_LISTED))
        self.problems = tuple(problems)


class ServerRefused(TrainingError):
    """A running server answered 400: what it was asked is wrong."""


class NothingTrained(TrainingError):
    """The run was stopped before the first optimiser step."""


class PublishFailed(TrainingError):
    """The adapter is trained and in the store, but was not taken where else it should be registered."""


def _listed(what: str, problems: Sequence[str], *, limit: int) -> str:
    if len(problems) == 1:
        return problems[0]
    lines = [f"{len(problems):,} {what}:", *(f"  {problem}" for problem in problems[:limit])]
    if len(problems) > limit:
        lines.append(f"  ... and {len(problems) - limit:,} more")
    return "\n".join(lines)
