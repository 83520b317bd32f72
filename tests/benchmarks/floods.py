"""What one caller notices of eight others who ask for dear things all the time."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks import replay, stored_runs
from benchmarks.events import TEXT, batch, create_request
from benchmarks.flooding import RUN
from benchmarks.kit.process import Process, process
from benchmarks.kit.report import Aim, Table
from benchmarks.kit.rounds import P50, P99, Bench, Figures, latencies
from benchmarks.peers.lavant import Lavant, http_address, serve
from lavant.v1.event_service_pb2 import AppendEventsRequest
from lavant.v1.run_service_pb2 import ListRunsRequest
from support.server import Stubs, connected

CALLERS = 8
QUIET, NEIGHBOUR = "quiet", "neighbour"
APPEND, LIST, GET = "append", "list", "GET"
FLOODS = {
    "filtered_pages": "ListEvents with a filter that matches nothing",
    "merged_deltas": "streams of merged deltas",
    "event_stream": "server-sent events of a long run",
    "json_pages": "pages of 1,000 events as JSON",
    "lists": "lists that match nothing, by many prefixes",
    "appends": "appends of 100 events",
}


async def run(bench: Bench) -> list[Table]:
    """Measure a neighbour's calls beside each flood, and without one."""
    runs, events = bench.size(100_000, quick=3_000), bench.size(200_000, quick=20_000)
    seconds = bench.size(8, quick=1) / 2
    folder = bench.subfolder("lavant")
    await stored_runs.fill(folder / "lavant.db", runs)
    async with serve(folder) as server, connected(server.address) as stubs:
        async with Lavant.connect(server.address) as connection:
            await replay.fill(connection, RUN, events)
        neighbour = Neighbour(stubs, http_address(server))
        await neighbour.begin()
        return [await _table(bench, server, neighbour, flood, seconds) for flood in FLOODS]


async def _table(bench: Bench, server: Process, neighbour: "Neighbour", flood: str, seconds: float) -> Table:
    async def flooded(_: int) -> Figures:
        async with _flooding(server, flood, bench.subfolder("flood")):
            return await neighbour.measure(seconds)

    measured = await bench.interleaved({"lavant": flooded, QUIET: lambda _: neighbour.measure(seconds)}, warm_up=False)
    return Table(
        name=f"floods: {flood}",
        title=f"a neighbour's calls beside {CALLERS} callers of {FLOODS[flood]}",
        measured=measured,
        aims=[
            Aim(unit=f"{APPEND} {P50}", beside=QUIET, at_most=3),
            Aim(unit=f"{GET} {P99}", at_most=100),
        ],
    )


@asynccontextmanager
async def _flooding(server: Process, flood: str, folder: Path) -> AsyncIterator[None]:
    addresses = (server.address, http_address(server))
    command = (sys.executable, "-m", "benchmarks.flooding", flood, *addresses, CALLERS)
    async with process(*command, folder=folder):
        await asyncio.sleep(0.3)  # until all are at it
        yield


class Neighbour:
    """A caller who appends one event, lists a few runs and gets one over HTTP, in turn."""

    RUN = "neighbour"

    def __init__(self, stubs: Stubs, http: str) -> None:
        self._stubs = stubs
        self._http = http
        self._appended = 0

    async def begin(self) -> None:
        """Create the run."""
        await self._stubs.runs.CreateRun(create_request(self.RUN))
        await self._append()

    async def measure(self, seconds: float) -> Figures:
        """Measure calls of each kind for some time."""
        waited: dict[str, list[float]] = {APPEND: [], LIST: [], GET: []}
        ends_at = time.perf_counter() + seconds
        while time.perf_counter() < ends_at:
            for kind, call in ((APPEND, self._append), (LIST, self._list), (GET, self._get)):
                waited[kind].append(await _timed(call))
        return {f"{kind} {unit}": value for kind in waited for unit, value in latencies(waited[kind]).items()}

    async def _append(self) -> None:
        events = batch(self.RUN, 1 + self._appended, [TEXT])
        await self._stubs.events.AppendEvents(AppendEventsRequest(batch=events))
        self._appended += 1

    async def _list(self) -> None:
        await self._stubs.runs.ListRuns(ListRunsRequest(page_size=5))

    async def _get(self) -> None:
        host, _, port = self._http.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"GET /api/v1/runs/{self.RUN} HTTP/1.1\r\nHost: {self._http}\r\nConnection: close\r\n\r\n".encode()
        )
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        writer.close()


async def _timed(call: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await call()
    return time.perf_counter() - began
