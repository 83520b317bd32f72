"""Where a tail goes: to a terminal, to a pipe as text, or anywhere as JSON lines."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, TextIO

from rich.console import Console

from lavant.client import Event, Run, RunResult
from lavant.client.cli._export_format import event_line
from lavant.client.cli._lines import json_line
from lavant.client.cli._plain_screen import PlainScreen
from lavant.client.cli._tail_live import Live
from lavant.client.cli._tail_view import TailView
from lavant.client.cli._terminal_screen import TerminalScreen

REFRESH_INTERVAL = 0.08


class Output(Protocol):
    """Takes a run and its events, in order."""

    def wait(self) -> None:
        """Take it that there is no run yet."""
        ...

    def open(self, run: Run) -> None:
        """Take the run as it stands, once, before its first event."""
        ...

    def skip(self, event: Event) -> None:
        """Take an event from before those that are asked for."""
        ...

    def show(self, event: Event) -> None:
        """Take an event."""
        ...

    def end(self, result: RunResult | None, count: int) -> None:
        """Take how the run ended, and how many events it has; no result: it goes on."""
        ...


class JsonLines:
    """Writes events as they are, each on a line of its own, flushed; nothing else."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def wait(self) -> None:
        """Leave it."""

    def open(self, run: Run) -> None:
        """Leave it: its first event says it."""

    def skip(self, event: Event) -> None:
        """Leave it."""

    def show(self, event: Event) -> None:
        """Write an event; its text cannot steer a terminal."""
        self._file.write(json_line(event_line(event.proto), self._file) + "\n")
        self._file.flush()

    def end(self, result: RunResult | None, count: int) -> None:
        """Leave it: the last event says it."""


@asynccontextmanager
async def output_to(file: TextIO, *, json: bool, joins_midway: bool) -> AsyncIterator[Output]:
    """Give the output that fits a file; what it was given is shown once the block is left."""
    if json:
        yield JsonLines(file)
        return
    console = Console(file=file, highlight=False, markup=False, emoji=False)
    if not file.isatty() or console.is_dumb_terminal:
        yield TailView(PlainScreen(file), Live(), joins_midway=joins_midway)
        return
    live = Live(state="connecting")
    with TerminalScreen(console, live, time.time) as screen:
        refreshing = asyncio.create_task(_refresh(screen))
        try:
            yield TailView(screen, live, joins_midway=joins_midway)
        finally:
            refreshing.cancel()


async def _refresh(screen: TerminalScreen) -> None:
    while True:
        screen.refresh()
        await asyncio.sleep(REFRESH_INTERVAL)
