"""Options of `hotprompt bench serve`, checked all at once. Starts nothing."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.errors import WrongUsage

PEERS = ("vllm", "transformers")
RESULTS_FILE = "results.json"

DEFAULT_CLIENTS = (1, 4, 8, 16, 32)
DEFAULT_REQUESTS = 16
DEFAULT_TOKENS = 64
DEFAULT_ROUNDS = 3
DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is measured, on what, and where it is written."""

    scenarios: tuple[str, ...]
    clients: tuple[int, ...] = DEFAULT_CLIENTS
    requests: int = DEFAULT_REQUESTS
    """Fewest requests of a run; there are never fewer than four for each client."""
    tokens: int = DEFAULT_TOKENS
    """Output tokens of a request."""
    rounds: int = DEFAULT_ROUNDS
    base: str
    dtype: str = DTYPES[0]
    peers: Path | None = None
    out: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The flags as they were typed; None where one was not."""

    scenario: Sequence[str] = ()
    clients: str | None = None
    requests: str | None = None
    tokens: str | None = None
    rounds: str | None = None
    base: str | None = None
    dtype: str | None = None
    peers: Path | None = None
    out: Path | None = None


def read_options(flags: Flags, *, known: Sequence[str], default_base: str, now: datetime) -> Options:
    """Options from flags. Raises WrongUsage with a line for each problem, naming its flag."""
    problems: list[str] = []
    for name in flags.scenario:
        if name not in known:
            problems.append(f"--scenario {name}: there is no such scenario (--list prints them)")
    options = Options(
        scenarios=tuple(name for name in known if name in flags.scenario or not flags.scenario),
        clients=read_numbers("--clients", flags.clients, DEFAULT_CLIENTS, problems),
        requests=read_number("--requests", flags.requests, DEFAULT_REQUESTS, (1, 100_000), problems),
        tokens=read_number("--tokens", flags.tokens, DEFAULT_TOKENS, (2, 100_000), problems),
        rounds=read_number("--rounds", flags.rounds, DEFAULT_ROUNDS, (1, 99), problems),
        base=flags.base or default_base,
        dtype=read_choice("--dtype", flags.dtype or DTYPES[0], DTYPES, problems),
        peers=_checked(flags.peers, _peers_problem, problems),
        out=_checked(flags.out, _out_problem, problems) or Path(f"bench-{now:%Y%m%d-%H%M%S}"),
    )
    if problems:
        raise WrongUsage(*problems)
    return options


def installed_peers(directory: Path | None) -> frozenset[str]:
    """Which peers have a virtual environment in a directory, each under its own name."""
    if directory is None:
        return frozenset()
    return frozenset(peer for peer in PEERS if (directory / peer / "bin" / peer).is_file())


def read_numbers(flag: str, text: str | None, default: tuple[int, ...], problems: list[str]) -> tuple[int, ...]:
    """Numbers from 1 to 1024, separated by commas, each once, smallest first."""
    if text is None:
        return default
    numbers = [read_number(flag, part.strip(), 1, (1, 1024), problems) for part in text.split(",")]
    return tuple(sorted(set(numbers)))


def read_number(flag: str, text: str | None, default: int, limits: tuple[int, int], problems: list[str]) -> int:
    """A whole number within limits; else the default, with a line among the problems."""
    if text is None:
        return default
    lowest, highest = limits
    if text.isascii() and text.isdecimal() and lowest <= int(text) <= highest:
        return int(text)
    problems.append(f"{flag} {text}: must be a whole number from {lowest} to {highest}")
    return default


def read_choice(flag: str, text: str, choices: Collection[str], problems: list[str]) -> str:
    """One of the choices, or a line among the problems."""
    if text not in choices:
        problems.append(f"{flag} {text}: must be one of {', '.join(choices)}")
    return text


def _checked(path: Path | None, problem_of: Callable[[Path], str | None], problems: list[str]) -> Path | None:
    if path is None:
        return None
    problem = problem_of(path.expanduser())
    if problem is not None:
        problems.append(problem)
    return path.expanduser().absolute()


def _peers_problem(path: Path) -> str | None:
    if installed_peers(path):
        return None
    return f"--peers {path}: holds no peer's virtual environment ({', '.join(f'{peer}/bin/{peer}' for peer in PEERS)})"


def _out_problem(path: Path) -> str | None:
    if path.exists() and not path.is_dir():
        return f"--out {path}: is not a directory"
    if (path / RESULTS_FILE).exists():
        return f"--out {path}: holds results already"
    return None
