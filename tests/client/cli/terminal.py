"""A terminal of 80 columns, in which a command works."""

import asyncio
import fcntl
import os
import struct
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pyte
import pytest

from client.cli.conftest import Start
from support.command import LIMIT, Process

HEIGHT = 40


class Terminal:
    """A model of a terminal, fed by a command."""

    def __init__(self, process: Process, master: int) -> None:
        self.process = process
        self.raw = b""
        self._screen = pyte.Screen(80, HEIGHT)
        self._stream = pyte.ByteStream(self._screen)
        self._master = master
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(master, self._read)

    @property
    def lines(self) -> list[str]:
        """What it shows, without what is blank at the right and below."""
        rows = ["".join(self._screen.buffer[y][x].data for x in range(80)).rstrip() for y in range(HEIGHT)]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    @property
    def cursor_is_hidden(self) -> bool:
        """Whether the cursor was left hidden."""
        return bool(self._screen.cursor.hidden)

    def style_of(self, text: str) -> str:
        """The colour of the first cell of a text."""
        row, column = next((y, line.index(text)) for y, line in enumerate(self.lines) if text in line)
        return str(self._screen.buffer[row][column].fg)

    async def shows(self, fulfilled: Callable[[list[str]], bool]) -> list[str]:
        """Wait until it shows what is expected; returns its lines."""
        try:
            async with asyncio.timeout(LIMIT):
                while not fulfilled(self.lines):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pytest.fail("\n".join(self.lines))
        return self.lines

    async def ended(self) -> int:
        """Wait for the command's end; returns its exit status."""
        ended = await self.process.ended()
        await self.shows(lambda _: self._master < 0)
        assert ended.status != 1, ended.err
        return ended.status

    def close(self) -> None:
        """Stop reading."""
        if self._master >= 0:
            asyncio.get_running_loop().remove_reader(self._master)
            os.close(self._master)
            self._master = -1

    def _read(self) -> None:
        try:
            given = os.read(self._master, 65536)
        except OSError:  # Nobody has the other side open any more.
            given = b""
        self.raw += given
        self._stream.feed(given)
        self._changed.set()
        if not given:
            self.close()


@asynccontextmanager
async def terminal(start: Start, *arguments: str, **variables: str) -> AsyncIterator[Terminal]:
    """A terminal in which a command works."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, 80, 0, 0))
    process = await start(*arguments, stdout=slave, **variables)
    os.close(slave)
    opened = Terminal(process, master)
    yield opened
    opened.close()


def has(text: str) -> Callable[[list[str]], bool]:
    """Whether a screen shows a text."""
    return lambda lines: any(text in line for line in lines)
