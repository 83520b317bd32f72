"""Commands that work on a store: `lavant backup`, `restore`, `copy`, and those of `lavant store`."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from lavant.client.cli.groups import examples, group
from lavant.client.cli.output import count
from lavant.client.cli.session import explain
from lavant.client.cli.statuses import FAILED
from lavant.client.cli.untrusted import one_line

if TYPE_CHECKING:
    from lavant.server.app.settings import Settings
    from lavant.server.store.jetstream import Connection, Location

_STORE_HELP = "The store; by default that of `lavant serve`: LAVANT_STORE, or a settings file."
FileStore = Annotated[
    str | None,
    typer.Option("--store", metavar="sqlite:///PATH", help=_STORE_HELP, show_default="sqlite:///lavant.db"),
]
SharedStore = Annotated[
    str | None,
    typer.Option("--store", metavar="nats://HOST:PORT,HOST:PORT/NAME", help=_STORE_HELP, show_default=False),
]
AnyStore = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="sqlite:///PATH|nats://HOST:PORT", help=_STORE_HELP, show_default="sqlite:///lavant.db"
    ),
]
_Answer = TypeVar("_Answer")

store = group("store", "Create and check a store on NATS, and rotate the key of any store.")


def backup(
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="File to write.", show_default=False)],
    store: FileStore = None,
    force: Annotated[bool, typer.Option("--force", help="Replace DEST if it exists.")] = False,
) -> None:
    """Back up a store into one file, even while a server uses it.

    The backup contains all events that were acknowledged before the command started. DEST appears once it is complete
    and verified. It contains the key that signs resume tokens: keep it as safe as the store.
    """
    with server_only("server"), _sqlite_errors():
        from lavant.server.store.sqlite.backup import back_up

        began = time.monotonic()
        contents = back_up(_file_of(store), destination, force=force)
        seconds = time.monotonic() - began
        print(one_line(f"backed up {_sizes(*contents)} in {seconds:.2f} s to {destination}"))


def restore(
    backup: Annotated[Path, typer.Argument(metavar="BACKUP", help="Output of `lavant backup`.", show_default=False)],
    store: FileStore = None,
    force: Annotated[bool, typer.Option("--force", help="Rename a store that exists, and restore.")] = False,
) -> None:
    """Restore a store from a backup; its server must be stopped.

    The store gets a new epoch: resume tokens from before are refused with STORE_EPOCH_CHANGED, and readers start from
    the beginning. Producers continue after the last event in the backup.
    """
    with server_only("server"), _sqlite_errors():
        from lavant.server.store.sqlite.backup import restore as restore_store

        began = time.monotonic()
        path = _file_of(store)
        contents, renamed = restore_store(backup, path, force=force)
        seconds = time.monotonic() - began
        kept = f"; the store before is kept as {renamed}" if renamed else ""
        print(one_line(f"restored {_sizes(*contents)} in {seconds:.2f} s to {path}{kept}"))


def copy(
    source: Annotated[str, typer.Argument(metavar="sqlite:///PATH", help="Store to copy.", show_default=False)],
    target: Annotated[
        str, typer.Argument(metavar="nats://HOST:PORT,HOST:PORT/NAME", help="New store.", show_default=False)
    ],
    keep_epoch: Annotated[
        bool, typer.Option("--keep-epoch", help="Keep resume tokens of the old store valid on the new one.")
    ] = False,
) -> None:
    """Copy a store from a file to NATS; its server must be stopped.

    The copy has all runs, events, times and producers. No server may use the new store yet. Repeat the command if a
    copy was interrupted. Resume tokens of the old store are refused with STORE_EPOCH_CHANGED, and readers start from
    the beginning, unless the epoch is kept: do that only if the old store is not used any more.
    """
    with server_only("server,nats"), _sqlite_errors():
        from lavant.server.commands.copying import copy as copy_store
        from lavant.server.errors import ServiceError
        from lavant.server.store import jetstream

        given, wanted = store_settings(source), store_settings(target)
        if given.store_is_shared or not wanted.store_is_shared:
            raise typer.BadParameter("stores are copied from sqlite:///PATH to nats://HOST:PORT")
        limits = jetstream.Limits(wanted.nats_replicas, wanted.nats_max_bytes)
        location = _location_of(wanted)
        began = time.monotonic()
        try:
            with _nats_errors(location):
                copied = asyncio.run(copy_store(given.store_path, location, limits, keep_epoch=keep_epoch))
        except ServiceError as error:
            raise _failure(f"lavant: {error.message}") from None
        seconds = time.monotonic() - began
        print(one_line(f"copied {count(copied.runs, 'run')}, {count(copied.events, 'event')} in {seconds:.2f} s"))


@store.command(epilog=examples("lavant store init --store nats://a:4222,b:4222,c:4222"))
def init(store: SharedStore = None) -> None:
    """Create the missing streams of a store on NATS; a server does the same when it starts.

    LAVANT_NATS_REPLICAS and LAVANT_NATS_MAX_BYTES set their replicas and their maximum size.
    """
    with server_only("server,nats"):
        from lavant.server.store.jetstream import Limits, prepare

        settings = store_settings(store)
        location = _location_of(settings)
        limits = Limits(settings.nats_replicas, settings.nats_max_bytes)
        _query(location, lambda connection: prepare(connection, location, limits))
        print(one_line(f"the store {location} is ready"))


@store.command(epilog=examples("lavant store check --store nats://a:4222,b:4222,c:4222"))
def check(store: SharedStore = None) -> None:
    """Report what is wrong with a store on NATS, or puts its data at risk; exit with 1 if there is anything.

    NATS does not report `sync_interval` to clients: make sure that its configuration sets it to `always`.
    """
    with server_only("server,nats"):
        from lavant.server.store.jetstream import examine

        location = _location_of(store_settings(store))
        findings = _query(location, lambda connection: examine(connection, location))
        for finding in findings or [f"the store {location} has no problems"]:
            print(one_line(finding))
        if findings:
            raise typer.Exit(1)


@store.command("rotate-key", epilog=examples("lavant store rotate-key --store nats://a:4222 --verify-for 3600"))
def rotate_key(
    store: AnyStore = None,
    verify_for: Annotated[
        float,
        typer.Option(
            "--verify-for", metavar="SECONDS", min=0, help="Time for which tokens of earlier keys stay valid."
        ),
    ] = 7 * 24 * 3600,
    remove: Annotated[
        bool,
        typer.Option("--remove", help="Make no new key: LAVANT_TOKEN_KEYS has the keys that sign from now on."),
    ] = False,
) -> None:
    """Replace the key that signs resume tokens; readers notice nothing until the earlier keys expire.

    Servers of a store on NATS use the new key within a minute, without a restart. The server of a file must be
    stopped. With `--verify-for 0`, all tokens that were issued before become invalid at once.
    """
    with server_only("server,nats"), _sqlite_errors():
        from lavant.server.commands.rotation import describe, rotate_in_file, rotate_on_nats

        settings = store_settings(store)
        if settings.store_is_shared:
            location = _location_of(settings)
            with _nats_errors(location):
                keys = rotate_on_nats(location, verify_for, replaced=not remove)
        else:
            keys = rotate_in_file(settings.store_path, verify_for, replaced=not remove)
        for key in keys:
            print(one_line(f"{key.id}: {describe(key)}"))
        if not keys:
            print("the store has no keys: set --token-keys-file for its servers")


@contextmanager
def server_only(extra: str) -> Iterator[None]:
    """Print what to install if a dependency of the server is missing, and report errors of the operating system."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise _failure(f"lavant: {package} is missing: pip install 'lavant[{extra}]'") from None
    except OSError as error:
        raise _failure(explain(error)) from None


@contextmanager
def _sqlite_errors() -> Iterator[None]:
    from lavant.server.store.sqlite import StoreUnusable

    try:
        yield
    except StoreUnusable as error:
        raise _failure(explain(error)) from None


@contextmanager
def _nats_errors(location: "Location") -> Iterator[None]:
    from lavant.server.store.jetstream import StoreUnusable, Unanswered

    try:
        yield
    except StoreUnusable as error:
        raise _failure(explain(error)) from None
    except Unanswered as error:
        raise _failure(f"lavant: cannot reach the store {location} ({error}); are its servers running?") from None


def _failure(text: str) -> typer.Exit:
    """Print why the command fails; return the exception to raise."""
    typer.echo(text, err=True)
    return typer.Exit(FAILED)


def store_settings(store: str | None) -> "Settings":
    """Return the settings of `lavant serve`, whose address is not used here and may be any."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from lavant.server.app.settings import Settings

    given: dict[str, Any] = {} if store is None else {"store": store}
    try:
        return Settings(listen="127.0.0.1:0", **given)
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(map(str, problem["loc"]))
        raise typer.BadParameter(f"{name}: {problem['msg'].removeprefix('Value error, ')}") from None
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from None


def _file_of(store: str | None) -> Path:
    settings = store_settings(store)
    if settings.store_is_shared:
        raise typer.BadParameter("store: must be sqlite:///PATH; NATS has its own tools, such as `nats stream backup`")
    return settings.store_path


def _location_of(settings: "Settings") -> "Location":
    from lavant.server.app.nats_location import location_of

    try:
        return location_of(settings)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _query(location: "Location", query: Callable[["Connection"], Coroutine[Any, Any, _Answer]]) -> _Answer:
    """Run a query on a connection to a store's servers."""
    from lavant.server.store.jetstream import Connection

    async def run() -> _Answer:
        connection = await Connection.open(location)
        try:
            return await query(connection)
        finally:
            await connection.close()

    with _nats_errors(location):
        return asyncio.run(run())


def _sizes(runs: int, events: int, size: int) -> str:
    return f"{count(runs, 'run')}, {count(events, 'event')}, {count(size, 'byte')}"
