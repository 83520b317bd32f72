"""Single calls, one kind after the other, beside bare gRPC calls that carry the same bytes."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from grpc import aio

from benchmarks.events import TEXT, batch, create_request
from benchmarks.kit.report import Aim, Table
from benchmarks.kit.rounds import SERVER_CPU, Bench, Figures, Meter, part
from benchmarks.peers import bare_server
from benchmarks.peers.bare import Bare
from benchmarks.peers.base import at_once
from benchmarks.peers.lavant import serve
from lavant.v1.event_service_pb2 import (
    AppendEventsRequest,
    EventBatch,
    ListEventsRequest,
    ProducerBatch,
    PublishEventsRequest,
    StreamEventsRequest,
)
from support.server import CHANNEL_OPTIONS, Stubs, connected

AT_ONCE = 8
TEXTS = [TEXT] * 20
PUBLISH = "PublishEvents, 2 batches"
CREATING = "AppendEvents that creates, 23 events"
GROUPS = {PUBLISH: "published", CREATING: "created"}  # of runs that a call writes
Call = Callable[[str], Awaitable[object]]


async def run(bench: Bench) -> list[Table]:
    """Measure the calls of a small run, 8 at a time, each on runs of its own."""
    count = bench.size(240, quick=64)
    async with (
        serve(bench.subfolder("lavant")) as server,
        connected(server.address) as stubs,
        Bare.serve(bench.subfolder("bare")) as bare,
        aio.insecure_channel(bare.address, options=CHANNEL_OPTIONS) as channel,
    ):
        ours, theirs = _lavant_calls(stubs), _bare_calls(channel)

        async def measured(calls: Mapping[str, Call], process: Any, round_number: int) -> Figures:
            # The order makes each call find what it needs: runs are created, written, finished, then read.
            figures = {}
            for name, call in calls.items():
                prefix = f"{GROUPS.get(name, 'appended')}-{round_number}-"
                if name == PUBLISH:
                    await at_once(AT_ONCE, count, _numbered(calls["CreateRun"], prefix))
                with Meter(process) as meter:
                    await at_once(AT_ONCE, count, _numbered(call, prefix))
                figures.update({f"{name}: {unit}": value for unit, value in meter.figures("calls", count).items()})
            return figures

        rounds = await bench.interleaved(
            {
                "lavant": lambda number: measured(ours, server, number),
                "bare": lambda number: measured(theirs, bare, number),
            }
        )
    return [_table(name, rounds) for name in ours]


def _numbered(call: Call, prefix: str) -> Callable[[int], Awaitable[object]]:
    return lambda number: call(f"{prefix}{number}")


def _table(call: str, rounds: Mapping[str, list[Figures]]) -> Table:
    return Table(
        name=f"calls {call.split(',')[0]}",
        title=f"{call}, {AT_ONCE} calls at a time",
        measured=part(rounds, call),
        aims=[Aim(unit=SERVER_CPU, beside="bare", at_most=1.5)],
        recorded=[SERVER_CPU],
        baseline="bare",
    )


def _lavant_calls(stubs: Stubs) -> dict[str, Call]:
    async def publish(run: str) -> None:
        call = stubs.events.PublishEvents()
        for half in _halves(run):
            await call.write(PublishEventsRequest(batches=[half]))
            await call.read()
        await call.done_writing()
        await call.read()

    async def stream(run: str) -> None:
        async for _ in stubs.events.StreamEvents(StreamEventsRequest(run_id=run, consumer_id="bench")):
            pass

    def create(run: str) -> Awaitable[object]:
        return stubs.runs.CreateRun(create_request(run))

    return {
        "CreateRun": create,
        f"AppendEvents, {len(TEXTS) + 3} events": lambda run: stubs.events.AppendEvents(
            AppendEventsRequest(batch=batch(run, 1, TEXTS, end=True))
        ),
        PUBLISH: publish,
        CREATING: lambda run: stubs.events.AppendEvents(
            AppendEventsRequest(batch=batch(run, 1, TEXTS, end=True, create=True))
        ),
        "StreamEvents, an ended run": stream,
        "ListEvents, an ended run": lambda run: stubs.events.ListEvents(ListEventsRequest(run_id=run)),
    }


def _bare_calls(channel: aio.Channel) -> dict[str, Call]:
    create: Any = channel.unary_unary(bare_server.CREATE)
    append: Any = channel.unary_unary(bare_server.APPEND)
    list_events: Any = channel.unary_unary(bare_server.LIST)

    async def publish(run: str) -> None:
        call: Any = channel.stream_stream(bare_server.PUBLISH)()
        for half in _halves(run):
            await call.write(_message(run, half))
            await call.read()
        await call.done_writing()
        await call.read()

    async def stream(run: str) -> None:
        call: Any = channel.unary_stream(bare_server.STREAM)
        async for data in call(run.encode()):
            EventBatch.FromString(data)

    def append_whole(run: str) -> Awaitable[object]:
        answer: Awaitable[object] = append(_message(run, batch(run, 1, TEXTS, end=True), end=True))
        return answer

    async def listed(run: str) -> None:
        EventBatch.FromString(await list_events(run.encode()))

    return {
        "CreateRun": lambda run: create(run.encode()),
        f"AppendEvents, {len(TEXTS) + 3} events": append_whole,
        PUBLISH: publish,
        CREATING: append_whole,
        "StreamEvents, an ended run": stream,
        "ListEvents, an ended run": listed,
    }


def _message(run: str, events: ProducerBatch, *, end: bool = False) -> bytes:
    return bare_server.message(run, EventBatch(events=events.events).SerializeToString(), end=end)


def _halves(run: str) -> tuple[ProducerBatch, ProducerBatch]:
    half = len(TEXTS) // 2
    return batch(run, 1, TEXTS[:half]), batch(run, 1 + half, TEXTS[half:], end=True)
