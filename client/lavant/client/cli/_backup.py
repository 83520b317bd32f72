"""`lavant backup` and `lavant restore`: copies of a SQLite store, and stores made from them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from lavant.client.cli._failures import explain
from lavant.client.cli._store_option import failure, server_side, settings_with
from lavant.client.cli._text import count, one_line

Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="sqlite:///PATH",
        help="The store; LAVANT_STORE and a settings file name it as they do for `lavant serve`.",
        show_default="sqlite:///lavant.db",
    ),
]


def backup(
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="The file to write.", show_default=False)],
    store: Store = None,
    force: Annotated[bool, typer.Option("--force", help="Replace DEST if it exists.")] = False,
) -> None:
    """Copy a store into one file, also while a server serves it.

    All that was acknowledged before the command began is in it. DEST appears once it is complete and
    verified. It holds the key that signs resume tokens: keep it as safe as the store.
    """
    with _server_side():
        from lavant.server.store.sqlite.backup import back_up

        began = time.monotonic()
        contents = back_up(_path(store), destination, force=force)
        seconds = time.monotonic() - began
        _print(f"backed up {_sizes(*contents)} in {seconds:.2f} s to {destination}")


def restore(
    backup: Annotated[Path, typer.Argument(metavar="BACKUP", help="What `lavant backup` wrote.", show_default=False)],
    store: Store = None,
    force: Annotated[bool, typer.Option("--force", help="Keep a store that is there aside, and restore.")] = False,
) -> None:
    """Make a store from a backup; its server must be stopped.

    The store begins a new life: resume tokens of the earlier one are refused with STORE_EPOCH_CHANGED,
    and readers begin anew. Producers go on behind what the backup holds.
    """
    with _server_side():
        from lavant.server.store.sqlite.restore import restore as restore_store

        began = time.monotonic()
        path = _path(store)
        contents, kept_aside = restore_store(backup, path, force=force)
        seconds = time.monotonic() - began
        kept = f"; the one before is kept as {kept_aside}" if kept_aside else ""
        _print(f"restored {_sizes(*contents)} in {seconds:.2f} s to {path}{kept}")


@contextmanager
def _server_side() -> Iterator[None]:
    with server_side("server"):
        from lavant.server.store.sqlite import StoreUnusable

        try:
            yield
        except StoreUnusable as error:
            raise failure(explain(error)) from None


def _path(store: str | None) -> Path:
    settings = settings_with(store)
    if settings.store_is_shared:
        raise typer.BadParameter("store: must be sqlite:///PATH; NATS has its own tools, such as `nats stream backup`")
    return settings.store_path


def _sizes(runs: int, events: int, size: int) -> str:
    return f"{count(runs, 'run')}, {count(events, 'event')}, {count(size, 'byte')}"


def _print(line: str) -> None:
    print(one_line(line))
