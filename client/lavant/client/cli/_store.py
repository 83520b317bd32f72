"""`lavant store init` and `lavant store check`: a store on NATS, made ready before servers use it, and looked at."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from lavant.client.cli._store_option import asking, server_side, settings_with
from lavant.client.cli._text import one_line

if TYPE_CHECKING:
    from lavant.server.settings import Settings
    from lavant.server.store.jetstream import Connection, Location

Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="nats://HOST:PORT,HOST:PORT/NAME",
        help="The store; LAVANT_STORE and a settings file name it as they do for `lavant serve`.",
        show_default=False,
    ),
]
_Answer = TypeVar("_Answer")

store = typer.Typer(name="store", help="Make a store on NATS ready, and look at it.", no_args_is_help=True)


@store.command(epilog="Example:\n\nlavant store init --store nats://a:4222,b:4222,c:4222")
def init(store: Store = None) -> None:
    """Create the streams of a store on NATS where they are missing; a server does the same at its start.

    LAVANT_NATS_REPLICAS and LAVANT_NATS_MAX_BYTES say how they are made.
    """
    with server_side("server,nats"):
        from lavant.server.store.jetstream import Limits, prepare

        settings, location = _shared(store)
        limits = Limits(settings.nats_replicas, settings.nats_max_bytes)
        _ask(location, lambda connection: prepare(connection, location, limits))
        print(one_line(f"the store {location} is ready"))


@store.command(epilog="Example:\n\nlavant store check --store nats://a:4222,b:4222,c:4222")
def check(store: Store = None) -> None:
    """Tell what is wrong with a store on NATS, or weak; exits with 1 if there is anything.

    NATS does not tell its clients whether `sync_interval` is `always`: see to that in its configuration.
    """
    with server_side("server,nats"):
        from lavant.server.store.jetstream import examine

        _, location = _shared(store)
        findings = _ask(location, lambda connection: examine(connection, location))
        for finding in findings or [f"the store {location} is as it should be"]:
            print(one_line(finding))
        if findings:
            raise typer.Exit(1)


def _shared(store: str | None) -> tuple["Settings", "Location"]:
    from lavant.server.store.jetstream import Location

    settings = settings_with(store)
    try:
        return settings, Location.parse(settings.store)
    except ValueError as error:
        raise typer.BadParameter(f"store: {error}") from None


def _ask(location: "Location", question: Callable[["Connection"], Coroutine[Any, Any, _Answer]]) -> _Answer:
    """Ask something of a store's servers."""
    from lavant.server.store.jetstream import Connection

    async def ask() -> _Answer:
        connection = await Connection.open(location.servers)
        try:
            return await question(connection)
        finally:
            await connection.close()

    with asking(location):
        return asyncio.run(ask())
