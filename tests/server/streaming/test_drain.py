"""A server that drains ends its streams with a frame, and the next server resumes them."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lavant.v1 import event_service_pb2 as pb
from lavant.v1.event_pb2 import Event
from support.events import a_run_of, run_finished, text_delta
from support.server import Server, Stubs, connected, serving
from support.streams import Frames, append, create, opened, publish, read_to_end, read_until, refused, stream, streamed

STREAMS, CHANNELS = 200, 4
DRAINING = pb.STREAM_END_REASON_DRAINING


def backlog() -> list[Event]:
    """10 MB of events: more than a call's buffers take in."""
    return [text_delta("x" * 10_000) for _ in range(1_000)]


async def open_many(stack: AsyncExitStack, server: Server) -> list[tuple[Stubs, str]]:
    """Connections, each with the names of its readers."""
    channels = [await stack.enter_async_context(connected(server.target)) for _ in range(CHANNELS)]
    return [(channels[number % CHANNELS], f"reader-{number}") for number in range(STREAMS)]


async def health_says_not_serving(server: Server) -> None:
    """Watch the server's health until it is NOT_SERVING."""
    watch = health_pb2_grpc.HealthStub(server.stubs.channel).Watch(health_pb2.HealthCheckRequest())
    while (await watch.read()).status != health_pb2.HealthCheckResponse.NOT_SERVING:
        pass
    watch.cancel()


async def test_two_hundred_streams_are_drained_and_resumed(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack, serving(tmp_path) as server:
        await create(server.stubs)
        await publish(server.stubs, a_run_of(10, finished=False))
        calls = [
            stream(stubs, consumer_id=name, session_id=name, attempt=1)
            for stubs, name in await open_many(stack, server)
        ]
        before = [await read_until(call, "caught_up") for call in calls]
        reading = asyncio.gather(*map(read_to_end, calls, before))
        loop = asyncio.get_running_loop()
        began = loop.time()
        await server.app.stop()
        assert loop.time() - began < 5
        ends = [frames.last.end for frames in await reading]
    assert {end.reason for end in ends} == {DRAINING}
    assert all(end.reconnect for end in ends)
    delays = [end.retry_delay.ToNanoseconds() / 1e9 for end in ends]
    assert 0 <= min(delays) < 0.2 < 1.8 < max(delays) <= 2
    async with AsyncExitStack() as stack, serving(tmp_path) as server:
        resumed = [
            await opened(stubs, consumer_id=name, session_id=name, attempt=2, resume_token=frames.last.resume_token)
            for (stubs, name), frames in zip(await open_many(stack, server), before, strict=True)
        ]
        await append(server.stubs, [text_delta(), run_finished()], first=11)
        for call, frames in zip(resumed, before, strict=True):
            await read_to_end(call, frames)
            assert frames.sequences == list(range(1, 13))


async def test_a_draining_server_takes_no_streams_and_says_when_to_come_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await create(server.stubs)
        await publish(server.stubs, [*a_run_of(2, finished=False), *backlog()], batch_size=90)
        stalled = await opened(server.stubs, consumer_id="stalled")
        stopping = asyncio.create_task(server.app.stop())
        await health_says_not_serving(server)
        problem = await refused(server.stubs)
        assert (problem.code, problem.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
        assert problem.retry_after is not None
        assert 0 < problem.retry_after <= 5
        frames = await read_to_end(stalled)
        await stopping
    assert frames.last.end.reason == DRAINING
    async with serving(tmp_path) as server:
        position = frames.last.resume_token
        rest = await streamed(server.stubs, resume_token=position, stop=pb.STOP_POSITION_HEAD)
        assert frames.sequences + rest.sequences == list(range(1, 1_003))


async def test_a_replay_is_cut_short_and_taken_up(tmp_path: Path) -> None:
    got = Frames()
    async with serving(tmp_path) as server:
        await create(server.stubs)
        await publish(server.stubs, [*a_run_of(2, finished=False), *backlog(), run_finished()], batch_size=90)
    for attempt in range(1, 4):
        async with serving(tmp_path) as server:
            token = got.last.resume_token if got.all else None
            call = stream(server.stubs, session_id="one", attempt=attempt, resume_token=token)
            await read_until(call, "events", got)
            stopping = asyncio.create_task(server.app.stop())
            await read_to_end(call, got)
            await stopping
            assert got.last.end.reason == DRAINING
    async with serving(tmp_path) as server:
        call = stream(server.stubs, resume_token=got.last.resume_token)
        await read_to_end(call, got)
    assert got.sequences == list(range(1, 1_004))
