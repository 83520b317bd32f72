"""What SIGTERM does to a command that leaves something behind."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from lavant.client.cli._exit_status import TERMINATED


@contextmanager
def cancelled_by_sigterm() -> Iterator[None]:
    """Cancel the current task at SIGTERM, so that all is left in order; raises typer.Exit with 143 then."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        if task is not None:
            task.cancel()

    loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        yield
    except asyncio.CancelledError:
        if terminated:
            raise typer.Exit(TERMINATED) from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
