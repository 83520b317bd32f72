"""Greedy callers in a process of their own: each repeats one dear call as fast as it is answered.

`python -m benchmarks.flooding FLOOD GRPC HTTP CALLERS` prints `ready` and runs until it is ended. Answers are not
parsed: what costs time is the server's work.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import uvloop
from grpc import aio

from benchmarks.events import TEXT, batch, create_request
from lavant.v1.event_pb2 import EventType
from lavant.v1.event_service_pb2 import (
    DELTA_MODE_MERGED,
    STOP_POSITION_HEAD,
    AppendEventsRequest,
    ListEventsRequest,
    StreamEventsRequest,
)
from lavant.v1.run_service_pb2 import ListRunsRequest, RunFilter
from support.server import CHANNEL_OPTIONS

RUN = "long"
EVENTS = "/lavant.v1.EventService/"
RUNS = "/lavant.v1.RunService/"
NAMES = [f"agent-{number}*" for number in range(20)]

Repeat = Callable[[], Awaitable[None]]


class Caller:
    """A caller with a connection of its own."""

    def __init__(self, number: int, channel: aio.Channel, http: str) -> None:
        self._number = number
        self._channel = channel
        self._http = http
        self._calls = count(1)

    async def filtered_pages(self) -> None:
        """Page through events of a type that there is none of."""
        request = ListEventsRequest(run_id=RUN, page_size=1_000, types=[EventType.EVENT_TYPE_ROW_FINISHED])
        await self._unary(EVENTS + "ListEvents", request)

    async def merged_deltas(self) -> None:
        """Read a long run with its deltas merged."""
        consumer = f"flood-{self._number}-{next(self._calls)}"
        request = StreamEventsRequest(
            run_id=RUN, consumer_id=consumer, deltas=DELTA_MODE_MERGED, stop=STOP_POSITION_HEAD
        )
        call: Any = self._channel.unary_stream(EVENTS + "StreamEvents")
        async for _ in call(request.SerializeToString()):
            pass

    async def event_stream(self) -> None:
        """Read a long run as server-sent events."""
        await self._get(f"/api/v1/runs/{RUN}/stream?stop=head")

    async def json_pages(self) -> None:
        """Read the first 1,000 events as JSON."""
        await self._get(f"/api/v1/runs/{RUN}/events?page_size=1000")

    async def lists(self) -> None:
        """List runs by many prefixes of names and a label that none of them has."""
        wanted = RunFilter(names=NAMES, labels={"env": "prod", "team": "t7"})
        await self._unary(RUNS + "ListRuns", ListRunsRequest(filter=wanted))

    async def appends(self) -> None:
        """Append 100 events."""
        number = next(self._calls)
        run = f"flood-{self._number}"
        if number == 1:
            await self._unary(RUNS + "CreateRun", create_request(run))
        events = batch(run, 1 + 100 * (number - 1), [TEXT] * 100)
        await self._unary(EVENTS + "AppendEvents", AppendEventsRequest(batch=events))

    async def _unary(self, method: str, request: Any) -> None:
        call: Any = self._channel.unary_unary(method)
        await call(request.SerializeToString())

    async def _get(self, path: str) -> None:
        host, _, port = self._http.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._http}\r\nConnection: close\r\n\r\n".encode())
        while await reader.read(1 << 20):
            pass
        writer.close()


async def _main(flood: str, grpc: str, http: str, callers: int) -> None:
    async def repeat(number: int) -> None:
        async with aio.insecure_channel(grpc, options=CHANNEL_OPTIONS) as channel:
            once: Repeat = getattr(Caller(number, channel, http), flood)
            while True:
                await once()

    print("ready", flush=True)
    await asyncio.gather(*map(repeat, range(callers)))


if __name__ == "__main__":
    _, chosen, grpc_address, http_address, number_of_callers = sys.argv
    uvloop.run(_main(chosen, grpc_address, http_address, int(number_of_callers)))
