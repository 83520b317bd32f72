"""What a client does with a server that answers at once, again and again, with nothing new."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from pydantic_evals.evaluators import EqualsExpected

from lavant.client import AsyncClient, Client, LavantError, StreamCut, Unavailable
from lavant.client._async.concurrency import Clock
from lavant.client._sync import concurrency as blocking
from lavant.client._wire.status import Backoff
from lavant.v1 import event_service_pb2 as pb
from lavant.v1 import run_service_pb2
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import StreamEndReason
from lavant.v1.run_pb2 import RUN_STATE_RUNNING, RUN_STATE_SUCCEEDED, Run
from support import scripted_samples
from support.scripted import Context, Script, end, events, opened, played
from support.scripted_calls import ScriptedService

RUNS = run_service_pb2.DESCRIPTOR.services_by_name["RunService"]
EVENTS = pb.DESCRIPTOR.services_by_name["EventService"]
PLANNED = end(StreamEndReason.STREAM_END_REASON_DEADLINE, reconnect=True)
CAUGHT_UP = pb.StreamEventsResponse(resume_token="t", caught_up=pb.CaughtUp())
Act = Callable[[Any, Context], AsyncIterator[Any]]


class NapClock(Clock):
    """Clock that moves only while somebody sleeps, which takes no time, and keeps the lengths of all sleeps."""

    def __init__(self) -> None:
        self.naps: list[float] = []
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def new_backoff() -> Backoff:
    return Backoff(initial=1.0, maximum=8.0, uniform=lambda _, high: high)


def replace_clock(client: AsyncClient) -> NapClock:
    """Let a client sleep without taking time, by delays of 1, 2, 4, 8 and 8 seconds."""
    clock = client._connection.clock = NapClock()
    client._connection.new_backoff = new_backoff
    return clock


def sends(*frames: Any) -> Act:
    async def act(request: Any, context: Context) -> AsyncIterator[Any]:
        for frame in frames:
            yield frame

    return act


FINISHES = sends(opened(), events(9, last=True), end(StreamEndReason.STREAM_END_REASON_RUN_FINISHED))


@pytest.mark.parametrize(
    ("frames", "naps"),
    [
        ((PLANNED,), [1.0, 2.0, 4.0, 8.0, 8.0]),
        ((opened(), PLANNED), [1.0, 2.0, 4.0, 8.0, 8.0]),
        ((opened(),), [1.0, 2.0, 4.0, 8.0, 8.0]),
        # The first call does bring something, so that its planned end is no reason to wait.
        ((opened(), CAUGHT_UP, PLANNED), [1.0, 2.0, 4.0, 8.0]),
        ((opened(), events(1, 2), PLANNED), [1.0, 2.0, 4.0, 8.0]),
        ((opened(), events(1, 2)), [1.0, 2.0, 4.0, 8.0, 8.0]),
    ],
)
async def test_stream_calls_without_progress_are_made_ever_more_rarely(frames: list[Any], naps: list[float]) -> None:
    async with played(Script([*[sends(*frames)] * 5, FINISHES])) as client:
        clock = replace_clock(client)
        *_, last = [event.sequence async for event in client.runs.stream("r")]
        assert (last, clock.naps) == (9, naps)


async def test_planned_ends_after_new_events_are_renewed_at_once() -> None:
    acts = [sends(opened(), events(number), PLANNED) for number in range(1, 9)]
    async with played(Script([*acts, FINISHES])) as client:
        clock = replace_clock(client)
        assert [event.sequence async for event in client.runs.stream("r")] == list(range(1, 10))
        assert clock.naps == []


async def test_calls_that_were_open_for_a_second_are_renewed_at_once() -> None:
    clocks: list[NapClock] = []

    async def grows_old(request: Any, context: Context) -> AsyncIterator[Any]:
        yield opened()
        clocks[0].now += 1.0
        yield PLANNED

    async with played(Script([*[grows_old] * 5, FINISHES])) as client:
        clocks.append(replace_clock(client))
        assert [event.sequence async for event in client.runs.stream("r")] == [9]
        assert clocks[0].naps == []


async def test_a_stream_that_never_opens_raises_after_reconnect_timeout() -> None:
    async with played(Script([sends(PLANNED)] * 20)) as client:
        clock = replace_clock(client)
        with pytest.raises(Unavailable):
            await anext(client.runs.stream("r", reconnect_timeout=10.0))
        assert clock.naps == [1.0, 2.0, 4.0, 3.0]


async def test_a_stream_that_stops_to_open_raises_after_reconnect_timeout() -> None:
    async with played(Script([sends(opened(), events(1), PLANNED), *[sends(PLANNED)] * 20])) as client:
        clock = replace_clock(client)
        with pytest.raises(StreamCut):
            await client.runs.stream("r", reconnect_timeout=10.0).result()
        assert sum(clock.naps) == 10.0


async def test_sample_calls_without_progress_are_made_ever_more_rarely() -> None:
    renewed = sends(scripted_samples.opened(), scripted_samples.end(reconnect=True))
    acts = [*[renewed] * 4, sends(scripted_samples.opened(), scripted_samples.caught_up())]
    async with played(scripted_samples.SampleScript(*acts)) as client:
        clock = replace_clock(client)
        await client.evaluations.process_stream("quality", evaluators=[EqualsExpected()], until_caught_up=True)
        assert clock.naps == [1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize("delivered", [(), (run_service_pb2.WatchRunsResponse(resume_token="t", caught_up=True),)])
async def test_watch_calls_without_progress_are_made_ever_more_rarely(delivered: tuple[Any, ...]) -> None:
    last = run_service_pb2.WatchRunsResponse(resume_token="t")
    last.end.SetInParent()
    found = run_service_pb2.WatchRunsResponse(resume_token="u", runs=[Run(run_id="r")])
    frames = [*[(*delivered, last)] * 4, (found,)]

    async def watch(request: Any, context: Context) -> AsyncIterator[Any]:
        for frame in frames.pop(0):
            yield frame

    async with played(ScriptedService(RUNS, WatchRuns=watch)) as client:
        clock = replace_clock(client)
        changes = client.runs.watch()
        while (await anext(changes)).type == "caught_up":
            pass
        assert clock.naps == [1.0, 2.0, 4.0, 8.0]


async def test_waiting_for_a_run_at_a_server_that_does_not_wait_pauses_ever_longer() -> None:
    states = [*[RUN_STATE_RUNNING] * 5, RUN_STATE_SUCCEEDED]

    async def answers_at_once(request: Any, context: Context) -> run_service_pb2.WaitRunResponse:
        return run_service_pb2.WaitRunResponse(run=Run(run_id="r", state=states.pop(0)))

    async with played(ScriptedService(RUNS, WaitRun=answers_at_once)) as client:
        clock = replace_clock(client)
        assert (await client.runs.wait("r", timeout=300)).state == "succeeded"
        assert clock.naps == [1.0, 2.0, 4.0, 8.0, 8.0]


class BlockingNapClock(blocking.Clock):
    """The same for the blocking client."""

    def __init__(self) -> None:
        self.naps: list[float] = []

    def monotonic(self) -> float:
        return sum(self.naps)

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)


async def test_blocking_streams_without_progress_are_made_ever_more_rarely() -> None:
    async with played(Script([*[sends(opened(), PLANNED)] * 5, FINISHES])) as client:

        def read() -> tuple[list[int], list[float]]:
            with Client(client.target) as same:
                clock = same._connection.clock = BlockingNapClock()
                same._connection.new_backoff = new_backoff
                return [event.sequence for event in same.runs.stream("r")], clock.naps

        assert await asyncio.to_thread(read) == ([9], [1.0, 2.0, 4.0, 8.0, 8.0])


async def _list_runs(client: AsyncClient) -> None:
    [_ async for _ in client.runs.list()]


async def _list_events(client: AsyncClient) -> None:
    [_ async for _ in client.runs.events("r")]


@pytest.mark.parametrize(
    ("service", "method", "page", "read"),
    [
        (RUNS, "ListRuns", run_service_pb2.ListRunsResponse(next_page_token="p"), _list_runs),
        (EVENTS, "ListEvents", pb.ListEventsResponse(events=[Event(sequence=1)], next_page_token="p"), _list_events),
    ],
)
async def test_list_whose_page_token_repeats_raises(
    service: Any, method: str, page: Any, read: Callable[[AsyncClient], Awaitable[None]]
) -> None:
    async def repeats(request: Any, context: Context) -> Any:
        return page

    script = ScriptedService(service, **{method: repeats})
    async with played(script) as client:
        with pytest.raises(LavantError, match="next_page_token"):
            await read(client)
    assert [request.page_token for request in script.requests] == ["", "p"]
