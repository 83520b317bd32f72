"""Which store a command works on, named as `lavant serve` names it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from lavant.client.cli._failures import FAILED, explain

if TYPE_CHECKING:
    from lavant.server.settings import Settings
    from lavant.server.store.jetstream import Location


@contextmanager
def server_side(extra: str) -> Iterator[None]:
    """Do what needs the server's parts; says what to install if they are missing, and else what went wrong."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise failure(f"lavant: {package} is missing: pip install 'lavant[{extra}]'") from None
    except OSError as error:
        raise failure(explain(error)) from None


def failure(text: str) -> typer.Exit:
    """Say why the command cannot do its work; to be raised."""
    typer.echo(text, err=True)
    return typer.Exit(FAILED)


@contextmanager
def asking(location: "Location") -> Iterator[None]:
    """Ask something of a store on NATS; says what is wrong with it, or that it does not answer."""
    from lavant.server.store.jetstream import StoreUnusable, Unanswered

    try:
        yield
    except StoreUnusable as error:
        raise failure(explain(error)) from None
    except Unanswered as error:
        raise failure(f"lavant: cannot reach the store {location} ({error}); are its servers running?") from None


def settings_with(store: str | None) -> "Settings":
    """The settings that a server would have; it listens nowhere, whatever they say."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from lavant.server.settings import Settings

    given: dict[str, Any] = {} if store is None else {"store": store}
    try:
        return Settings(listen="127.0.0.1:0", **given)
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(map(str, problem["loc"]))
        raise typer.BadParameter(f"{name}: {problem['msg'].removeprefix('Value error, ')}") from None
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from None
