"""`lavant copy`: from a store in a file to one on NATS."""

import asyncio
import time
from typing import Annotated

import typer

from lavant.client.cli._failures import explain
from lavant.client.cli._store_option import asking, failure, server_side, settings_with
from lavant.client.cli._text import count, one_line


def copy(
    source: Annotated[str, typer.Argument(metavar="sqlite:///PATH", help="The store to copy.", show_default=False)],
    target: Annotated[
        str, typer.Argument(metavar="nats://HOST:PORT,HOST:PORT/NAME", help="The new one.", show_default=False)
    ],
    keep_epoch: Annotated[
        bool, typer.Option("--keep-epoch", help="Have resume tokens of the store work on the new one.")
    ] = False,
) -> None:
    """Copy a store whose server is stopped to NATS: runs, events, times and producers, all as they are.

    No server may use the new store yet. A copy that was cut off is made again by the same command. Resume tokens
    are refused with STORE_EPOCH_CHANGED, so that readers begin anew, unless the epoch is kept: do that only if
    nobody goes on with the old store.
    """
    with server_side("server,nats"):
        from lavant.server.copying import copy as copy_store
        from lavant.server.errors import LavantError
        from lavant.server.store import jetstream
        from lavant.server.store.sqlite import StoreUnusable

        given, wanted = settings_with(source), settings_with(target)
        if given.store_is_shared or not wanted.store_is_shared:
            raise typer.BadParameter("stores are copied from sqlite:///PATH to nats://HOST:PORT")
        limits = jetstream.Limits(wanted.nats_replicas, wanted.nats_max_bytes)
        began = time.monotonic()
        try:
            location = jetstream.Location.parse(wanted.store)
            with asking(location):
                copied = asyncio.run(copy_store(given.store_path, location, limits, keep_epoch=keep_epoch))
        except ValueError as error:
            raise typer.BadParameter(f"store: {error}") from None
        except LavantError as error:
            raise failure(f"lavant: {error.message}") from None
        except StoreUnusable as error:
            raise failure(explain(error)) from None
        seconds = time.monotonic() - began
        print(one_line(f"copied {count(copied.runs, 'run')}, {count(copied.events, 'event')} in {seconds:.2f} s"))
