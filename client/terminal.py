"""What every command has in common: its exit codes, its lines on stdout and stderr, its logging. Knows no command."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:  # imported when it is needed: --help must be quick
    from rich.console import Console

FAILED, WRONG_USAGE = 1, 2
"""Exit codes; 0 is done."""

_NO_WRAPPING = 1000


def end(code: int, *lines: str) -> NoReturn:
    """End the program with lines on stderr."""
    for line in lines:
        typer.echo(f"hotprompt: {line}", err=True)
    raise typer.Exit(code)


@contextmanager
def failures() -> Iterator[None]:
    """Turn what adapters, stores, base models and servers raise into one line on stderr and an exit code."""
    from adapters.errors import AdapterError, AdapterNameInvalid, BaseModelError
    from client.errors import ClientError

    try:
        yield
    except AdapterNameInvalid as error:
        end(WRONG_USAGE, str(error))
    except (AdapterError, BaseModelError, ClientError) as error:
        end(FAILED, str(error))


def stdout() -> "Console":
    """A console on stdout; into a pipe or a file it wraps nothing, so that a line stays a line."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=_NO_WRAPPING)


def stderr() -> "Console":
    """A console on stderr, where the log is."""
    from rich.console import Console

    return Console(stderr=True)


def log_to_stderr(level: int) -> None:
    """Log from this level on; preparing the base model is always told, since it takes a while."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("adapters").setLevel(logging.INFO)
    for chatty in ("httpx", "httpx2", "uvicorn"):  # httpx2 is huggingface_hub's: it would log signed addresses
        logging.getLogger(chatty).setLevel(logging.WARNING)


def quiet_transformers() -> None:
    """Keep transformers' own bars and hints off the terminal. The hub's bars stay: a download takes a while."""
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    # peft asks transformers by a name that the next version drops: nothing that a user could mend.
    warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated", category=FutureWarning)
    set_verbosity_error()
    disable_progress_bar()
