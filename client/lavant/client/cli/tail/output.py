"""Outputs of a tail: a terminal, text in a pipe, or JSON lines."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, TextIO

from rich.console import Console

from lavant.client import Event, Run, RunResult
from lavant.client.cli.export import event_line
from lavant.client.cli.output import json_line
from lavant.client.cli.tail.model import Status
from lavant.client.cli.tail.screen import PlainScreen
from lavant.client.cli.tail.terminal import TerminalScreen
from lavant.client.cli.tail.view import TailView

REFRESH_INTERVAL = 0.08


class Output(Protocol):
    """Output of a run and its events, in order."""

    def wait(self) -> None:
        """Show that the run does not exist yet."""
        ...

    def open(self, run: Run) -> None:
        """Show the current snapshot of the run, once, before its first event."""
        ...

    def skip(self, event: Event) -> None:
        """Process an event before those that are wanted."""
        ...

    def show(self, event: Event) -> None:
        """Show an event."""
        ...

    def end(self, result: RunResult | None, count: int) -> None:
        """Show the outcome and the number of events; without a result, the run has not ended."""
        ...


class JsonLines:
    """Output of events as JSON, one per line and flushed, and of nothing else."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def wait(self) -> None:
        """Do nothing."""

    def open(self, run: Run) -> None:
        """Do nothing: the first event has it."""

    def skip(self, event: Event) -> None:
        """Do nothing."""

    def show(self, event: Event) -> None:
        """Write an event; its text cannot control a terminal."""
        self._file.write(json_line(event_line(event.proto), self._file) + "\n")
        self._file.flush()

    def end(self, result: RunResult | None, count: int) -> None:
        """Do nothing: the last event has it."""


@asynccontextmanager
async def output_to(file: TextIO, *, json: bool, joins_midway: bool) -> AsyncIterator[Output]:
    """Yield the output for a file; all of it is shown at the end of the block."""
    if json:
        yield JsonLines(file)
        return
    console = Console(file=file, highlight=False, markup=False, emoji=False)
    if not file.isatty() or console.is_dumb_terminal:
        yield TailView(PlainScreen(file), Status(), joins_midway=joins_midway)
        return
    status = Status(state="connecting")
    with TerminalScreen(console, status, time.time) as screen:
        refreshing = asyncio.create_task(_refresh(screen))
        try:
            yield TailView(screen, status, joins_midway=joins_midway)
        finally:
            refreshing.cancel()


async def _refresh(screen: TerminalScreen) -> None:
    while True:
        screen.refresh()
        await asyncio.sleep(REFRESH_INTERVAL)
