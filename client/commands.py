"""`hotprompt adapters` and `hotprompt chat`: flags in, lines out. Imports what a command needs when it runs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.terminal import FAILED, WRONG_USAGE, end, failures, quiet_transformers, stderr, stdout

if TYPE_CHECKING:  # the names cost seconds of imports at run time
    from adapters.store import AdapterStore
    from client.adapter_place import AdapterPlace
    from client.connection import Connection
    from client.findings import Findings

adapters_app = typer.Typer(
    help="List and change the adapters of a store (--store), or of a running server (--url).", no_args_is_help=True
)

StoreOption = Annotated[
    Path | None,
    typer.Option("--store", help="Store directory. Default: HOTPROMPT_STORE, or store in HOTPROMPT_HOME."),
]
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
        print_list(stdout(), place.list())


@adapters_app.command("show")
def show_adapter(
    name: NameArgument, store: StoreOption = None, url: UrlOption = None, api_key: KeyOption = None
) -> None:
    """Show one adapter: versions, training, measurements."""
    from client.adapter_tables import print_one

    with _place(store, url, api_key) as place:
        print_one(stdout(), place.show(name))


@adapters_app.command("add")
def add_adapter(
    name: NameArgument,
    source: Annotated[
        str,
        typer.Argument(
            help="Directory with adapter_config.json and adapter_model.safetensors; or, with --url, what the server "
            "fetches by itself: hf://org/repo@revision, s3://bucket/path, gs://bucket/path, az://container/path."
        ),
    ],
    store: StoreOption = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
) -> None:
    """Publish an adapter; under a name that exists it becomes a new version."""
    from adapters.files import read_adapter_directory
    from client.adapter_place import ServerPlace
    from client.adapter_tables import added_line
    from client.remote_fetch import fetch_remotely, is_remote

    if is_remote(source):
        with _server(url, api_key, why=f"SOURCE {source}: servers fetch this; name one with --url") as connection:
            fetch_remotely(connection, name, source)
            typer.echo(added_line(ServerPlace(connection).show(name)))
        return
    if not Path(source).is_dir():
        end(WRONG_USAGE, f"SOURCE {source}: not a directory")
    with _place(store, url, api_key, may_create=True) as place:
        typer.echo(added_line(place.add(name, read_adapter_directory(Path(source)))))


@adapters_app.command("export")
def export_adapter(
    name: Annotated[str, typer.Argument(metavar="NAME[@DIGEST]")],
    path: Annotated[Path, typer.Argument(metavar="FILE.tar", help="Where to; a file that is there is replaced.")],
    store: StoreOption = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
) -> None:
    """Write one version into a tar that import reads, anywhere."""
    from adapters.tar_format import write_tar_file

    with _place(store, url, api_key) as place:
        files = place.export(name)
        try:
            write_tar_file(path, files)
        except OSError as error:
            end(FAILED, f"FILE {path}: cannot be written: {error.strerror}")
        typer.echo(f"{name} is in {path}")


@adapters_app.command("import")
def import_adapter(
    path: Annotated[Path, typer.Argument(metavar="FILE.tar", help="What export wrote, or a tar of such files.")],
    name: Annotated[str | None, typer.Option(help="Publish it under this name. Default: the one it had.")] = None,
    store: StoreOption = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
) -> None:
    """Publish the adapter in a tar; under a name that exists it becomes a new version."""
    from adapters.exporting import read_exported
    from client.adapter_tables import added_line

    with _place(store, url, api_key, may_create=True) as place:
        typer.echo(added_line(place.add(*read_exported(path, name=name))))


@adapters_app.command("remove")
def remove_adapter(
    name: NameArgument, store: StoreOption = None, url: UrlOption = None, api_key: KeyOption = None
) -> None:
    """Remove an adapter or an alias."""
    with _place(store, url, api_key) as place:
        place.remove(name)
        typer.echo(f"{name} is removed")


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
        typer.echo(f"{name} is {'no longer pinned' if off else 'pinned'}")


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
        typer.echo(f"{alias} stands for {target}")


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
        typer.echo(f"{name} is {place.rollback(name, digest).digest[:12]} again")


@adapters_app.command("canary")
def canary_adapter(
    name: NameArgument,
    digest: Annotated[str | None, typer.Argument(help="Another version of it.")] = None,
    percent: Annotated[int | None, typer.Argument(min=1, max=99, help="How many percent of the users get it.")] = None,
    off: Annotated[bool, typer.Option("--off", help="Let the current version answer everybody.")] = False,  # noqa: FBT002
    store: StoreOption = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
) -> None:
    """Let another version answer a part of the users, or no longer."""
    if off != (digest is None) or off != (percent is None):
        end(WRONG_USAGE, "give DIGEST and PERCENT, or --off alone")
    with _place(store, url, api_key) as place:
        if digest is None or percent is None:
            typer.echo(f"{name} is {place.end_canary(name).digest[:12]} for everybody")
            return
        after = place.canary(name, digest, percent)
        typer.echo(f"{name} is {after.digest[:12]}, and {digest[:12]} for {percent} % of its users")


@adapters_app.command("verify")
def verify_adapters(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME|PATH]", help="A name, or a directory. Default: every adapter.")
    ] = None,
    store: StoreOption = None,
    base: Annotated[
        str | None, typer.Option(help="Also check that it belongs to this base model, and replay its probes there.")
    ] = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
) -> None:
    """Read adapters whole: digest, format, finite values, base model and probes. Exits with 1 when one is wrong.

    With --url the running server replays the probes on its own engine.
    """
    from client.adapter_tables import print_replayed

    if url is not None and (store is not None or base is not None):
        end(WRONG_USAGE, "--url excludes --store and --base")
    quiet_transformers()
    with failures():
        findings = _ask_server(name, url, api_key) if url is not None else _read_here(name, store, base)
    print_replayed(stdout(), findings.replayed)
    if not findings.is_good:
        raise typer.Exit(FAILED)


def _ask_server(name: str | None, url: str, api_key: str | None) -> "Findings":
    from client.connection import Connection
    from client.remote_verify import verify_remote

    with Connection(url, api_key=api_key) as connection:
        return verify_remote(connection, name=name)


def _read_here(name: str | None, store: Path | None, base: str | None) -> "Findings":
    from adapters.base_model import open_base_model
    from adapters.home import home_directory
    from client.verify import verify_directory, verify_store

    opened = open_base_model(base, home=home_directory()) if base is not None else None
    if name is not None and (Path(name) / "adapter_config.json").exists():
        return verify_directory(Path(name), base=opened, say=typer.echo)
    return verify_store(_store_at(store), name=name, base=opened, say=typer.echo)


def chat(
    model: Annotated[str, typer.Option(help="Base model or adapter to talk to.")] = "smollm2-135m-instruct",
    url: Annotated[str, typer.Option(help="A running server.")] = "http://127.0.0.1:8000",
    api_key: KeyOption = None,
    system: Annotated[str | None, typer.Option(help="System prompt to begin with.")] = None,
    markdown: Annotated[  # noqa: FBT002
        bool, typer.Option("--markdown/--no-markdown", help="Show answers as Markdown, in a terminal.")
    ] = True,
) -> None:
    """Talk to a model of a running server. What comes through a pipe is one question: echo hi | hotprompt chat."""
    from adapters.home import home_directory
    from client.chat import answer_once, run_chat
    from client.chat_input import line_reader
    from client.connection import Connection
    from client.conversation import Conversation

    with failures(), Connection(url, api_key=api_key) as connection:
        conversation = Conversation(connection, model, system)
        if sys.stdin.isatty():
            read_line = line_reader(home_directory() / "chat_history")
            run_chat(conversation, stdout(), stderr(), read_line, is_markdown=markdown)
            return
        question = sys.stdin.read().strip()
        if not question:
            end(WRONG_USAGE, "standard input: there is no question in it")
        answer_once(conversation, stdout(), question)


@contextmanager
def _server(url: str | None, api_key: str | None, *, why: str) -> "Iterator[Connection]":
    """The server of a command that needs one; without it, the program ends and says why."""
    from client.connection import Connection

    if url is None:
        end(WRONG_USAGE, why)
    with failures(), Connection(url, api_key=api_key) as connection:
        yield connection


@contextmanager
def _place(
    store: Path | None, url: str | None, api_key: str | None, *, may_create: bool = False
) -> "Iterator[AdapterPlace]":
    """The server or the store that the flags name; what fails inside ends the program with one line."""
    from adapters.embedded_base import EMBEDDED_BASE_NAME
    from client.adapter_place import ServerPlace, StorePlace
    from client.connection import Connection

    if url is not None and store is not None:
        end(WRONG_USAGE, "--store and --url exclude each other")
    with failures():
        if url is None:
            yield StorePlace(_store_at(store, may_create=may_create), base_name=EMBEDDED_BASE_NAME)
            return
        with Connection(url, api_key=api_key) as connection:
            yield ServerPlace(connection)


def _store_at(directory: Path | None, *, may_create: bool = False) -> "AdapterStore":
    """The store in a directory, or the default one. A directory that is named by mistake is not made into a store."""
    from adapters.home import default_store
    from adapters.store import AdapterStore

    if directory is None:
        return AdapterStore(default_store())
    if not may_create and not (directory.expanduser() / "names").is_dir():
        end(WRONG_USAGE, f"--store {directory}: there is no store (adapters add and train make one)")
    return AdapterStore(directory.expanduser())
