"""Costs of the Python client, beside the generated stub that does the same."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks import replay
from benchmarks.events import TEXT, batch, create_request
from benchmarks.kit.report import Aim, Table
from benchmarks.kit.rounds import CLIENT_CPU, Bench, Figures, Meter
from benchmarks.peers.lavant import Lavant, serve
from lavant.client import AsyncClient
from lavant.v1.event_service_pb2 import PublishEventsRequest, PublishEventsResponse, StreamEventsRequest
from support.server import connected

TOKENS_A_TURN = 20  # what a model's answer brings at once, before the agent waits for more
IN_FLIGHT = 8
RETURNS = "text() returns µs"


async def reading(bench: Bench) -> list[Table]:
    """Compare reading a stored run by the client with reading it by the stub; each event's text is accessed."""
    events = bench.size(100_000, quick=20_000)
    async with serve(bench.subfolder("lavant")) as server:
        async with Lavant.connect(server.address) as connection:
            await replay.fill(connection, replay.RUN, events)

        async def measure(read: Callable[[str], Awaitable[int]]) -> Figures:
            with Meter(server) as meter:
                length = await read(server.address)
            assert length == events * len(TEXT)
            return meter.figures("events", events)

        measured = await bench.interleaved(
            {
                "lavant": lambda _: measure(_by_client),
                "stub": lambda _: measure(_by_stub),
                "text()": lambda _: measure(_text),
                "collect()": lambda _: measure(_collected),
            }
        )
    return [
        Table(
            name="reading",
            title=f"a stored run of {events:,} events by the Python client",
            measured=measured,
            aims=[
                Aim(unit=CLIENT_CPU, beside="stub", at_most=1.25),
                Aim(unit=CLIENT_CPU, system="collect()", at_most=5),
            ],
            recorded=[CLIENT_CPU],
            baseline="stub",
        )
    ]


async def writing(bench: Bench) -> list[Table]:
    """Compare `run.text`, with all that it makes the client do, with batches of 20 of the stub."""
    events = bench.size(20_000, quick=4_000)
    async with serve(bench.subfolder("lavant")) as server:

        async def by_client(number: int) -> Figures:
            seconds = []
            with Meter(server) as meter:
                async with AsyncClient(server.address) as client, client.runs.start("bench") as run:
                    for event in range(events):
                        began = time.perf_counter()
                        await run.text(TEXT)
                        seconds.append(time.perf_counter() - began)
                        if event % TOKENS_A_TURN == 0:
                            await asyncio.sleep(0)
            return {**meter.figures("events", events), RETURNS: statistics.median(seconds) * 1e6}

        async def by_stub(number: int) -> Figures:
            with Meter(server) as meter:
                await _write(server.address, f"stub-{number}", events)
            return meter.figures("events", events)

        measured = await bench.interleaved({"lavant": by_client, "stub": by_stub})
    return [
        Table(
            name="writing",
            title=f"{events:,} text deltas by the Python client, {TOKENS_A_TURN} at a time",
            measured=measured,
            aims=[Aim(unit=CLIENT_CPU, beside="stub", at_most=1.25), Aim(unit=RETURNS, at_most=10)],
            recorded=[CLIENT_CPU],
            baseline="stub",
        )
    ]


async def _by_client(address: str) -> int:
    length = 0
    async with AsyncClient(address) as client:
        async for event in client.runs.stream(replay.RUN):
            if event.type == "text_delta":
                length += len(event.data.text)
    return length


async def _by_stub(address: str) -> int:
    length = 0
    async with connected(address) as stubs:
        async for frame in stubs.events.StreamEvents(StreamEventsRequest(run_id=replay.RUN, consumer_id="bench")):
            for event in frame.events.events:
                if event.WhichOneof("payload") == "text_delta":
                    length += len(event.text_delta.text)
    return length


async def _text(address: str) -> int:
    async with AsyncClient(address) as client:
        return len(await client.runs.stream(replay.RUN).text())


async def _collected(address: str) -> int:
    async with AsyncClient(address) as client:
        return len((await client.runs.stream(replay.RUN).collect()).text)


async def _write(address: str, run: str, events: int) -> None:
    async with connected(address) as stubs:
        await stubs.runs.CreateRun(create_request(run))
        call, unanswered = stubs.events.PublishEvents(), 0
        for first in range(1, events + 1, TOKENS_A_TURN):
            await call.write(PublishEventsRequest(batches=[batch(run, first, [TEXT] * TOKENS_A_TURN)]))
            unanswered += 1
            if unanswered == IN_FLIGHT:
                unanswered -= await _read_answers(call)
        while unanswered:
            unanswered -= await _read_answers(call)
        call.cancel()


async def _read_answers(call: Any) -> int:
    response = await call.read()
    assert isinstance(response, PublishEventsResponse)
    return len(response.answers)
