"""Streams of samples end like those of events."""

import asyncio
from pathlib import Path

import grpc
import pytest

from lavant.v1 import event_service_pb2 as event_pb
from support.clock import ManualClock
from support.events import a_run_of, custom
from support.rules import Worker, create_rule, delete_rule, finish, get_rule, pass_time
from support.server import Server, Stubs, serving
from support.status import refused
from support.streams import append, create


async def end_of(worker: Worker) -> event_pb.StreamEnd:
    """The last frame."""
    await worker.until(lambda one: one.kinds[-1] == "end")
    return worker.frames[-1].end


async def test_half_a_second_before_the_deadline(timed_server: Server, clock: ManualClock) -> None:
    stubs = timed_server.stubs
    await create_rule(stubs)
    worker = Worker(stubs)
    worker.open(timeout=100)
    await worker.caught_up()
    await pass_time(stubs, clock, 100)
    end = await end_of(worker)
    assert (end.reason, end.reconnect) == (event_pb.STREAM_END_REASON_DEADLINE, True)
    assert "heartbeat" in worker.kinds


async def test_at_its_age(tmp_path: Path, clock: ManualClock) -> None:
    async with serving(tmp_path, clock=clock, max_stream_age=60) as server:
        await create_rule(server.stubs)
        worker = await Worker(server.stubs).opened()
        await worker.caught_up()
        await pass_time(server.stubs, clock, 67)
        assert (await end_of(worker)).reason == event_pb.STREAM_END_REASON_MAX_AGE


async def test_a_draining_server_gives_places_and_samples_back(server: Server, stubs: Stubs) -> None:
    await create_rule(stubs)
    worker = await Worker(stubs).opened()
    await finish(stubs, ["a"])
    await worker.got(1)
    server.app.calls.drain()
    end = await end_of(worker)
    assert (end.reason, end.reconnect) == (event_pb.STREAM_END_REASON_DRAINING, True)
    await server.app.calls.ended()
    with refused("UNAVAILABLE"):
        await Worker(stubs, "two").opened()


async def test_one_stream_a_worker(stubs: Stubs) -> None:
    await create_rule(stubs)
    first = await Worker(stubs, "one", worker_id="w").opened()
    with refused("CONSUMER_BUSY"):
        await Worker(stubs, "two", worker_id="w").opened()
    again = await Worker(stubs, "one", worker_id="w").opened(attempt=1)
    with refused("STREAM_DISPLACED"):
        await first.caught_up(runs_examined=1)
    with refused("STALE_ATTEMPT"):
        await Worker(stubs, "one", worker_id="w").opened()
    rival = await Worker(stubs, "two", worker_id="w").opened(take_over=True)
    with refused("STREAM_DISPLACED"):
        await again.caught_up(runs_examined=1)
    await finish(stubs, ["a"])
    assert await rival.got(1) == ["a"]


async def test_a_session_is_minted_for_who_names_none(stubs: Stubs) -> None:
    await create_rule(stubs)
    worker = await Worker(stubs, "").opened(worker_id="w")
    worker.session_id = worker.frames[0].opened.session_id
    assert worker.session_id
    await finish(stubs, ["a"])
    await worker.got(1)
    assert await worker.complete("a") == [False]


async def test_tokens_are_of_one_rule_and_one_life_of_it(stubs: Stubs, clock: ManualClock) -> None:
    await create_rule(stubs)
    await create_rule(stubs, "other")
    worker = await Worker(stubs).opened()
    token = worker.frames[0].resume_token
    worker.cut()
    for forged in ("forged", token):
        with refused("RESUME_TOKEN_INVALID"):
            await Worker(stubs, rule_id="other").opened(resume_token=forged)
    clock.advance(1)
    await delete_rule(stubs)
    await create_rule(stubs)
    with refused("RESUME_TOKEN_INVALID"):
        await Worker(stubs).opened(resume_token=token)


async def test_a_stalled_reader_loses_its_place(tmp_path: Path) -> None:
    async with serving(tmp_path, write_timeout=0.5) as server:
        stubs = server.stubs
        await create_rule(stubs)
        for number in range(12):
            await create(stubs, f"run-{number}")
            events = a_run_of(2, finished=False)
            await append(stubs, events, run_id=f"run-{number}")
            large = custom()
            last = a_run_of(4)[-1]
            last.run_finished.output_json = '"' + "x" * 900_000 + '"'
            await append(stubs, [large], first=3, run_id=f"run-{number}")
            await append(stubs, [a_run_of(4)[-2], last], first=4, run_id=f"run-{number}")
        worker = Worker(stubs)
        call = worker.open()
        await worker.read()
        await server.app.calls.ended()
        with refused("SLOW_CONSUMER"):
            while True:
                await worker.read()
        assert await call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        again = await Worker(stubs, "two", worker_id="worker-one", max_samples=1).opened()
        assert again.kinds == ["opened"]


@pytest.mark.parametrize("count", [30])
async def test_streams_that_come_and_go_leave_nothing(server: Server, stubs: Stubs, count: int) -> None:
    await create_rule(stubs)
    await finish(stubs, [f"run-{number}" for number in range(5)])

    async def pass_by(number: int) -> None:
        worker = Worker(stubs, f"s{number}", max_samples=1)
        call = worker.open()
        if number % 2:
            await worker.read()
        call.cancel()

    await asyncio.gather(*map(pass_by, range(count)))
    await server.app.calls.ended()
    assert (await get_rule(stubs)).rule_id == "rule"
