"""Runs a command's work with a client, and turns what goes wrong into one line and an exit status."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

import typer

from lavant.client import AsyncClient, LavantError
from lavant.client.cli._failures import FAILED, PIPE_CLOSED, CommandError, explain

PATIENCE = 10.0
LONG_PATIENCE = 60.0

Work = Callable[[AsyncClient], Awaitable[None]]


def run(work: Work, target: str | None, api_key: str | None, patience: float = PATIENCE) -> None:
    """Do a command's work to its end.

    `patience` is how long each call may take while the server is out of reach, in seconds. Raises
    typer.Exit with 1 for what went wrong, 141 when nobody reads the output any more.
    """
    try:
        try:
            asyncio.run(_connected(work, target, api_key, patience))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would raise once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(PIPE_CLOSED) from None
    except (LavantError, CommandError, OSError) as error:
        typer.echo(explain(error, target), err=True)
        raise typer.Exit(FAILED) from None


async def _connected(work: Work, target: str | None, api_key: str | None, patience: float) -> None:
    try:
        client = AsyncClient(target, api_key=api_key, timeout=patience)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    async with client:
        await work(client)
