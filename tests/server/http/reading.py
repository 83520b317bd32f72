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


async def read(response: httpx.Response) -> AsyncIterator[Sent]:
    """Give the events of a stream. One that was cut in its middle is not given."""
    name, data, last_id = "message", list[str](), ""
    async for line in response.aiter_lines():
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
        elif field == "id":
            last_id = value
        elif not line:
            if data:
                yield Sent(name, "\n".join(data), last_id)
            name, data = "message", []


async def read_all(web: httpx.AsyncClient, path: str, last_id: str = "", **parameters: Any) -> list[Sent]:
    """Read a stream to its end."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with web.stream("GET", path, headers=headers, params=parameters) as response:
        if response.status_code != 200:
            await response.aread()
        response.raise_for_status()
        return [event async for event in read(response)]
