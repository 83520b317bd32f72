"""Server-sent events of a stored run, read for the first time, and the time that others wait meanwhile."""

import asyncio
import sys
import time
from functools import partial

from benchmarks import replay, sse_server
from benchmarks.events import TEXT, json_events
from benchmarks.kit.process import Process, process
from benchmarks.kit.report import Aim, Table
from benchmarks.kit.rounds import P50, P99, SERVER_CPU, Bench, Figures, Meter, latencies
from benchmarks.peers.lavant import Lavant, http_address, serve

WAIT = f"other request {P50}"
PAGE = 1_000


async def run(bench: Bench) -> list[Table]:
    """Compare with Starlette, which sends the events one by one from memory."""
    events = bench.size(20_000, quick=5_000)
    async with (
        serve(bench.subfolder("lavant")) as server,
        process(sys.executable, sse_server.__file__, folder=bench.subfolder("starlette")) as other,
    ):
        address = http_address(server)
        async with Lavant.connect(server.address) as connection:
            for number in range(-1, bench.rounds):
                await replay.fill(connection, f"run{number}", events)
        for first in range(1, events + 1, PAGE):
            await _answer(other.address, "/run", b"[" + b",".join(json_events(first, [TEXT] * PAGE)) + b"]")

        def path(number: int) -> str:
            return f"/api/v1/runs/run{number}/stream"

        measured = await bench.interleaved(
            {
                "lavant": lambda number: _read(server, address, path(number)),
                "lavant, read again": lambda number: _read(server, address, path(number)),
                "starlette": partial(_read_starlette, other),
            }
        )
    return [
        Table(
            name="sse",
            title=f"server-sent events, a stored run of {events:,}, first read",
            measured=measured,
            aims=[Aim(unit="events/s", beside="starlette", at_least=1.5), Aim(unit=WAIT, at_most=3)],
            recorded=[SERVER_CPU],
            baseline="starlette",
        )
    ]


async def _read_starlette(server: Process, _: int) -> Figures:
    return await _read(server, server.address, "/run")


async def _read(server: Process, address: str, path: str) -> Figures:
    """Read a whole run, with another request after the other at the same time."""
    waits: list[float] = []

    async def ask() -> None:
        while True:
            began = time.perf_counter()
            await _answer(address, "/healthz")
            waits.append(time.perf_counter() - began)

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0.01)
    waits.clear()
    with Meter(server) as meter:
        body = await _answer(address, path)
    asking.cancel()
    events = body.count(b"\nid: ")
    figures = meter.figures("events", events)
    other = latencies(waits)
    return {**figures, "bytes an event": len(body) / events, WAIT: other[P50], f"other request {P99}": other[P99]}


async def _answer(address: str, path: str, body: bytes = b"") -> bytes:
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    method = "POST" if body else "GET"
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    pieces = []
    while piece := await reader.read(1 << 20):
        pieces.append(piece)
    writer.close()
    return b"".join(pieces)
