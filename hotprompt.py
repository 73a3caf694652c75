"""The front door: `hotprompt serve | train | adapters | chat`. Reads flags, and imports the rest when it is needed.

Exit codes: 0 done, 2 wrong usage, 1 failed. A user's mistake is one line on stderr for each problem.
"""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:  # the names cost seconds of imports at run time
    from rich.console import Console

    from adapters.store import AdapterStore
    from client.adapter_place import AdapterPlace

WRONG_USAGE, FAILED = 2, 1

app = typer.Typer(
    help="Serve one base model with many small adapters, and train them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
adapters_app = typer.Typer(
    help="List and change the adapters of a store (--store), or of a running server (--url).", no_args_is_help=True
)
app.add_typer(adapters_app, name="adapters")


def main() -> None:
    """Run the command line."""
    # OpenMP's threads spin at every barrier by default. Beside any other busy thread (event loop, clients) that makes a
    # step many times slower, so they spin for a short while only. It counts if it is set before torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    app()


# -- serve -------------------------------------------------------------------------------------------------------------


@app.command()
def serve(
    base: Annotated[
        str | None,
        typer.Option(
            help="Base model: smollm2-135m-instruct (embedded, the default), a model "
            "directory, or a hub id (owner/name)."
        ),
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="Directory of the adapter store. Default: store in HOTPROMPT_HOME.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[str | None, typer.Option(help="TCP port; 0 takes a free one. Default: 8000.")] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda. Default: auto, CUDA where there is one.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="auto, bfloat16, float16 or float32. Default: auto, bfloat16 where the device computes in it."
        ),
    ] = None,
    max_model_len: Annotated[
        str | None,
        typer.Option(
            help="Most tokens of one request: virtual tokens, prompt and answer. "
            "Default: the model's context, at most 4096."
        ),
    ] = None,
    kv_cache_memory: Annotated[
        str | None,
        typer.Option(
            help="Memory of the KV cache, as 512MiB or 2GiB. Default: 1GiB on the CPU (a "
            "quarter of the free memory if less), half of the free memory on CUDA."
        ),
    ] = None,
    max_num_seqs: Annotated[str | None, typer.Option(help="Most requests computed in one batch. Default: 64.")] = None,
    max_num_batched_tokens: Annotated[
        str | None,
        typer.Option(help="Most tokens computed in one step; longer prompts are cut into chunks. Default: 512."),
    ] = None,
    quantization: Annotated[
        str | None, typer.Option(help="none; int8 is not available in this release. Default: none.")
    ] = None,
    shutdown_grace_seconds: Annotated[
        str | None,
        typer.Option(help="Seconds that running requests get to finish after SIGTERM or Ctrl-C. Default: 30."),
    ] = None,
) -> None:
    """Serve the base model and its adapters. Each flag is also an environment variable, as HOTPROMPT_PORT.

    Keys come by the environment only: HOTPROMPT_API_KEYS for chat, HOTPROMPT_ADMIN_KEYS for changing adapters.
    """
    flags = dict(locals())
    from server.config import SettingsError, load_settings

    try:
        settings = load_settings(**flags)
    except SettingsError as error:
        _exit(WRONG_USAGE, *str(error).splitlines())
    _log_to_stderr(logging.INFO)
    _quiet_libraries()
    from server.serve import StartError
    from server.serve import serve as run_server

    try:
        run_server(settings)
    except SettingsError as error:
        _exit(WRONG_USAGE, *str(error).splitlines())
    except StartError as error:
        _exit(FAILED, str(error))


# -- train -------------------------------------------------------------------------------------------------------------


@app.command()
def train(
    config: Annotated[Path | None, typer.Option(help="YAML file with settings, as in examples/.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value: any setting of docs/training.md; may be repeated.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Base model, as in serve.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Rows to train on: alpaca JSON or JSONL, or a save_to_disk directory.")
    ] = None,
    eval_data: Annotated[str | None, typer.Option(help="Held-out rows, measured before and after.")] = None,
    name: Annotated[str | None, typer.Option(help="Name to publish the adapter under.")] = None,
    store: Annotated[
        str | None, typer.Option(help="Directory of the adapter store. Default: store in HOTPROMPT_HOME.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Kind of adapter. Default: prompt_tuning.")] = None,
    max_steps: Annotated[str | None, typer.Option(help="Optimiser steps. Default: as many as the epochs have.")] = None,
    learning_rate: Annotated[str | None, typer.Option(help="Highest learning rate.")] = None,
    seed: Annotated[str | None, typer.Option(help="Decides the order of the rows and random virtual tokens.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, bfloat16 or float32, of the base model.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
) -> None:
    """Train an adapter and publish it to the store. Flags go before --set, and that before --config."""
    flags = {key: value for key, value in locals().items() if key not in ("config", "set_")}
    from training.config import load_train_config
    from training.errors import ConfigError, DataError, TrainingError

    try:
        settings = load_train_config(config, set_ or [], flags)
    except ConfigError as error:
        _exit(WRONG_USAGE, *error.problems)
    _log_to_stderr(logging.WARNING)
    _quiet_libraries()
    from adapters.errors import AdapterError, BaseModelError
    from training.train import train as run_training

    try:
        result = run_training(settings, console=_console())
    except ConfigError as error:
        _exit(WRONG_USAGE, *error.problems)
    except DataError as error:
        _exit(FAILED, *str(error).splitlines())
    except (TrainingError, AdapterError, BaseModelError) as error:
        _exit(FAILED, str(error))
    if result.interrupted:
        raise typer.Exit(FAILED)


# -- adapters ----------------------------------------------------------------------------------------------------------

StoreOption = Annotated[Path | None, typer.Option("--store", help="Store directory. Default: store in HOTPROMPT_HOME.")]
UrlOption = Annotated[str | None, typer.Option("--url", help="A running server, in place of a store.")]
KeyOption = Annotated[
    str | None, typer.Option("--api-key", envvar="HOTPROMPT_API_KEY", help="Key for the server.", show_envvar=True)
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME")]


@adapters_app.command("list")
def list_adapters(store: StoreOption = None, url: UrlOption = None, api_key: KeyOption = None) -> None:
    """List every adapter."""
    from client.adapter_tables import print_list

    with _place(store, url, api_key) as place:
        print_list(_console(), place.list())


@adapters_app.command("show")
def show_adapter(
    name: NameArgument, store: StoreOption = None, url: UrlOption = None, api_key: KeyOption = None
) -> None:
    """Show one adapter: versions, training, measurements."""
    from client.adapter_tables import print_one

    with _place(store, url, api_key) as place:
        print_one(_console(), place.show(name))


@adapters_app.command("add")
def add_adapter(
    name: NameArgument,
    path: Annotated[Path, typer.Argument(help="Directory with adapter_config.json and adapter_model.safetensors.")],
    store: StoreOption = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
) -> None:
    """Publish an adapter; under a name that exists it becomes a new version."""
    with _place(store, url, api_key) as place:
        added = place.add(name, path)
        _say(f"{added.name} is {added.digest[:12]} ({added.kind}, {added.num_virtual_tokens} virtual tokens)")


@adapters_app.command("remove")
def remove_adapter(
    name: NameArgument, store: StoreOption = None, url: UrlOption = None, api_key: KeyOption = None
) -> None:
    """Remove an adapter or an alias."""
    with _place(store, url, api_key) as place:
        place.remove(name)
        _say(f"{name} is removed")


@adapters_app.command("pin")
def pin_adapter(
    name: NameArgument,
    off: Annotated[bool, typer.Option("--off", help="Let it leave the memory again.")] = False,  # noqa: FBT002
    store: StoreOption = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
) -> None:
    """Keep an adapter in a server's memory."""
    with _place(store, url, api_key) as place:
        place.pin(name, pinned=not off)
        _say(f"{name} is {'no longer pinned' if off else 'pinned'}")


@adapters_app.command("alias")
def alias_adapter(
    alias: Annotated[str, typer.Argument(metavar="ALIAS")],
    target: Annotated[str, typer.Argument(metavar="NAME", help="An adapter's name; in a store also NAME@DIGEST.")],
    store: StoreOption = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
) -> None:
    """Give an adapter one more name, or move an alias."""
    with _place(store, url, api_key) as place:
        place.alias(alias, target)
        _say(f"{alias} stands for {target}")


@adapters_app.command("rollback")
def rollback_adapter(
    name: NameArgument,
    digest: Annotated[str | None, typer.Argument(help="A version; default: the one before the current one.")] = None,
    store: StoreOption = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
) -> None:
    """Make a name stand for an earlier version."""
    with _place(store, url, api_key) as place:
        _say(f"{name} is {place.rollback(name, digest).digest[:12]} again")


@adapters_app.command("verify")
def verify_adapters(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Default: every adapter.")] = None,
    store: StoreOption = None,
    base: Annotated[str | None, typer.Option(help="Also check that it belongs to this base model.")] = None,
) -> None:
    """Read adapters whole: digest, format, finite values, and the base model. Exits with 1 when one is wrong."""
    from client.verify import verify_store

    _quiet_libraries()
    with _failures():
        problems = verify_store(_store_at(store), name=name, base=base, say=_say)
    if problems:
        raise typer.Exit(FAILED)


# -- chat --------------------------------------------------------------------------------------------------------------


@app.command()
def chat(
    model: Annotated[str, typer.Option(help="Base model or adapter to talk to.")] = "smollm2-135m-instruct",
    url: Annotated[str, typer.Option(help="A running server.")] = "http://127.0.0.1:8000",
    api_key: KeyOption = None,
) -> None:
    """Talk to a model of a running server."""
    from client.chat import Conversation, run_chat
    from client.connection import Connection

    console = _console()
    prompt = "> " if sys.stdin.isatty() else ""
    with _failures(), Connection(url, api_key=api_key) as connection:
        run_chat(Conversation(connection, model), console, lambda: input(prompt))


# -- shared by the commands --------------------------------------------------------------------------------------------


@contextmanager
def _place(store: Path | None, url: str | None, api_key: str | None) -> "Iterator[AdapterPlace]":
    """The server or the store that the flags name; what fails inside ends the program with one line."""
    from adapters.embedded_base import EMBEDDED_BASE_NAME
    from client.adapter_place import ServerPlace, StorePlace
    from client.connection import Connection

    if url is not None and store is not None:
        _exit(WRONG_USAGE, "--store and --url exclude each other")
    with _failures():
        if url is None:
            yield StorePlace(_store_at(store), base_name=EMBEDDED_BASE_NAME)
            return
        with Connection(url, api_key=api_key) as connection:
            yield ServerPlace(connection)


def _store_at(directory: Path | None) -> "AdapterStore":
    from adapters.home import default_store
    from adapters.store import AdapterStore

    return AdapterStore(directory.expanduser() if directory is not None else default_store())


@contextmanager
def _failures() -> Iterator[None]:
    """Turn what users can mend into one line on stderr and exit code 1."""
    from adapters.errors import AdapterError, BaseModelError
    from client.errors import ClientError

    try:
        yield
    except (AdapterError, BaseModelError, ClientError) as error:
        _exit(FAILED, str(error))


def _exit(code: int, *lines: str) -> NoReturn:
    for line in lines:
        typer.echo(f"hotprompt: {line}", err=True)
    raise typer.Exit(code)


def _say(line: str) -> None:
    typer.echo(line)


def _console() -> "Console":
    from rich.console import Console

    return Console()


def _log_to_stderr(level: int) -> None:
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("adapters").setLevel(logging.INFO)  # says so when the base model is prepared, which takes a while
    for chatty in ("httpx", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _quiet_libraries() -> None:
    """Keep transformers' own bars and peft's warning off the terminal; what hotprompt does itself is still told."""
    # peft asks transformers by a name that the next version drops: nothing that a user could mend.
    warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated", category=FutureWarning)
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


if __name__ == "__main__":
    main()
