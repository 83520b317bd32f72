"""Reads server-sent events as a browser does: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class Sent:
    """An event that was dispatched, and the last id known by then."""

    name: str
    data: str
    last_id: str


class Parser:
    """Takes lines. `last_id` is what a browser would resume with: the id of the last blank line."""

    def __init__(self) -> None:
        self.last_id = ""
        self._id = ""
        self._begin()

    def _begin(self) -> None:
        self._name, self._data = "message", list[str]()

    def take(self, line: str) -> Sent | None:
        """Take a line, without its end; return the event that it dispatches."""
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        elif field == "id":
            self._id = value
        elif not line:
            self.last_id = self._id
            event = Sent(self._name, "\n".join(self._data), self.last_id) if self._data else None
            self._begin()
            return event
        else:
            assert field in ("", "retry"), f"no line of a stream: {line[:80]!r}"
        return None


def parse(body: bytes) -> tuple[list[Sent], str]:
    """Return the events of a stream that may be cut anywhere, and the last id."""
    *lines, _ = body.split(b"\n")
    parser = Parser()
    return [event for line in lines if (event := parser.take(line.decode())) is not None], parser.last_id


async def read(response: httpx.Response) -> AsyncIterator[Sent]:
    """Return the events of a stream, without one that was cut in its middle."""
    parser = Parser()
    async for line in response.aiter_lines():
        event = parser.take(line)
        if event is not None:
            yield event


async def read_all(web: httpx.AsyncClient, path: str, last_id: str = "", **parameters: Any) -> list[Sent]:
    """Read a stream to its end."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with web.stream("GET", path, headers=headers, params=parameters) as response:
        if response.status_code != 200:
            await response.aread()
        response.raise_for_status()
        return [event async for event in read(response)]
