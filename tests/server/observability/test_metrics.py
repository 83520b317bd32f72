"""What a real server's metrics say after known actions."""

import asyncio
from pathlib import Path

import pytest

from lavant.v1 import event_service_pb2 as pb
from lavant.v1.event_pb2 import EventType
from server.observability.scraping import Scrape
from support.calls import answer, create, ended_run, publish, publishing, until
from support.events import a_run_of, batch_of, custom, run_finished, run_started, text_delta
from support.server import Server, connected, serving
from support.status import refused
from support.streams import append, opened, read_to_end, read_until, stream, streamed

READERS = 3


def scrape(server: Server) -> Scrape:
    return Scrape(server.app.metrics)


def endings(server: Server) -> dict[str, float]:
    return scrape(server).by("reason", "streams_ended_total")


async def test_what_is_published_and_what_every_reader_is_sent(server: Server) -> None:
    await create(server.stubs)
    first, rest = a_run_of(40, finished=False), [text_delta(), run_finished()]
    await append(server.stubs, first)
    calls = [stream(server.stubs, consumer_id=f"reader-{number}") for number in range(READERS)]
    read = [await read_until(call, "caught_up") for call in calls]
    during = scrape(server)
    await append(server.stubs, rest, first=41)
    for call, frames in zip(calls, read, strict=True):
        await read_to_end(call, frames)
    await until(lambda: len(server.app.calls) == 0)
    after = scrape(server)

    assert during("store_events_total") == 40
    assert during("stream_events_total", protocol="grpc") == 40 * READERS
    assert during("stream_delivery_seconds_count", protocol="grpc") == 0, "a replay is not live"
    assert after("store_events_total") == 42
    assert after("store_event_bytes_total") == pb.EventBatch(events=read[0].events).ByteSize()
    assert after("stream_events_total", protocol="grpc") == 42 * READERS
    assert after("stream_events_total", protocol="http") == 0
    assert after("stream_bytes_total", protocol="grpc") == sum(call.size for call in calls)
    assert after("stream_delivery_seconds_count", protocol="grpc") == READERS
    assert (
        after("streams_opened_total", protocol="grpc") == after("streams_caught_up_total", protocol="grpc") == READERS
    )
    assert after.by("reason", "streams_ended_total") == {"RUN_FINISHED": READERS}
    assert after.by("outcome", "append_batches_total") == {"appended": 2}
    assert after("append_seconds_count") == 2
    assert 0 < after("append_seconds_sum") < 20
    assert (after("store_commit_changes_count"), after("store_commit_changes_sum")) == (3, 3)


async def test_what_is_held_while_readers_are_there(server: Server) -> None:
    def held() -> list[float]:
        now = scrape(server)
        gauges = ("leases_held", "runs_tailed", "calls_open")
        return [now("streams_open", protocol="grpc"), *map(now, gauges)]

    await create(server.stubs)
    await create(server.stubs, "other")
    calls = [await opened(server.stubs, consumer_id=name) for name in ("one", "two")]
    calls.append(await opened(server.stubs, run_id="other"))
    assert held() == [3, 3, 2, 3]
    async with publishing(server.stubs) as producer:
        await publish(producer, a_run_of(2, finished=False))
        await answer(producer)
        assert held() == [3, 3, 2, 4], "a producer holds no place"
    calls.pop().cancel()
    await until(lambda: held() == [2, 2, 1, 2])
    for call in calls:
        call.cancel()
    await until(lambda: held() == [0, 0, 0, 0])
    assert endings(server) == {"CANCELLED": 3}


async def test_what_a_latecomer_is_sent_from_memory_was_not_delayed(server: Server) -> None:
    await create(server.stubs)
    early = await opened(server.stubs, consumer_id="early")
    await read_until(early, "caught_up")
    await append(server.stubs, a_run_of(4, finished=False))
    await read_until(early, "events")
    late = await streamed(server.stubs, consumer_id="late", stop=pb.STOP_POSITION_HEAD)
    assert len(late.events) == 4
    await until(lambda: scrape(server)("stream_events_total", protocol="grpc") == 8)
    assert scrape(server)("stream_delivery_seconds_count", protocol="grpc") == 1
    early.cancel()


async def test_events_that_a_filter_leaves_out_are_not_sent(server: Server) -> None:
    await ended_run(server.stubs, size=20)
    kinds = [EventType.EVENT_TYPE_RUN_STARTED, EventType.EVENT_TYPE_MESSAGE_STARTED, EventType.EVENT_TYPE_RUN_FINISHED]
    some = await streamed(server.stubs, types=kinds)
    merged = await streamed(server.stubs, deltas=pb.DELTA_MODE_MERGED)
    assert (len(some.events), len(merged.events)) == (3, 5)
    assert scrape(server)("stream_events_total", protocol="grpc") == 8


async def test_a_reader_that_does_not_read_lags(server: Server) -> None:
    await create(server.stubs)
    async with connected(server.target) as other:
        stalled = await opened(other, consumer_id="stalled")
        await append(server.stubs, [run_started()])
        for number in range(2, 34):
            await append(server.stubs, [custom(value_json='"' + "x" * 500_000 + '"')], first=number)
        now = scrape(server)
        lag = now("stream_lag_events", protocol="grpc")
        assert 0 < lag == 33 - now("stream_events_total", protocol="grpc")
        await streamed(server.stubs, consumer_id="quick", stop=pb.STOP_POSITION_HEAD)
        quick = await opened(server.stubs, consumer_id="quick", start=pb.START_POSITION_NOW)
        now = scrape(server)
        assert now("streams_open", protocol="grpc") == 2
        assert now("stream_lag_events", protocol="grpc") == now("stream_lag_events_max", protocol="grpc") > 0
        stalled.cancel()
        await until(lambda: scrape(server)("streams_open", protocol="grpc") == 1)
        assert scrape(server)("stream_lag_events", protocol="grpc") == 0
        assert endings(server) == {"CANCELLED": 1, "HEAD_REACHED": 1}, "left within a write, and no fault"
        quick.cancel()


async def test_endings_by_reason(tmp_path: Path) -> None:
    async with serving(tmp_path, drain_timeout=20) as server:
        await create(server.stubs)
        await append(server.stubs, [run_started()])
        await streamed(server.stubs, stop=pb.STOP_POSITION_HEAD)
        await read_to_end(stream(server.stubs, timeout=2))
        with refused("RUN_NOT_FOUND"):
            await stream(server.stubs, run_id="nothing").read()
        held = await opened(server.stubs, session_id="one")
        with refused("CONSUMER_BUSY"):
            await stream(server.stubs, session_id="two").read()
        taker = await opened(server.stubs, session_id="two", take_over=True)
        with refused("STREAM_DISPLACED"):
            await read_to_end(held)
        stopping = asyncio.create_task(server.app.stop())
        await read_to_end(taker)
        await stopping
        reasons = "HEAD_REACHED", "DEADLINE", "RUN_NOT_FOUND", "CONSUMER_BUSY", "STREAM_DISPLACED", "DRAINING"
        assert endings(server) == dict.fromkeys(reasons, 1)
        assert scrape(server)("streams_opened_total", protocol="grpc") == 4


async def test_a_slow_reader(tmp_path: Path) -> None:
    async with serving(tmp_path, write_timeout=0.2) as server, connected(server.target) as other:
        await create(server.stubs)
        await append(server.stubs, [run_started()])
        for number in range(2, 34):
            await append(server.stubs, [custom(value_json='"' + "x" * 500_000 + '"')], first=number)
        call = await opened(other)
        await until(lambda: endings(server) == {"SLOW_CONSUMER": 1})
        call.cancel()


async def test_producers_by_outcome_and_rejections_by_reason(server: Server) -> None:
    await create(server.stubs)
    events = a_run_of(4, finished=False)
    await append(server.stubs, events)
    await append(server.stubs, events)
    await append(server.stubs, [])
    with refused("INVALID_FIELD"):
        await append(server.stubs, events, run_id="no/id")
    with refused("PRODUCER_GAP"):
        await append(server.stubs, [text_delta()], first=9)
    async with publishing(server.stubs) as call:
        await publish(call, [text_delta()], first=4)
        await publish(call, [text_delta()], first=5)
        await publish(call, [text_delta()], first=9)
        await publish(call, [text_delta()], run_id="nothing")
        await publish(call, [text_delta()], run_id="no/id")
        for _ in range(5):
            await answer(call)
    now = scrape(server)
    assert now.by("outcome", "append_batches_total") == {"appended": 2, "duplicate": 1, "empty": 1}
    assert now.by("reason", "append_rejections_total") == {
        "INVALID_FIELD": 2,
        "PRODUCER_CONFLICT": 1,
        "PRODUCER_GAP": 2,
        "RUN_NOT_FOUND": 1,
    }
    assert now("store_events_total") == 5
    assert now("append_seconds_count") == 2


async def test_batches_that_wait_together_are_committed_together(server: Server) -> None:
    for number in range(8):
        await create(server.stubs, f"run-{number}")
    before = scrape(server)
    async with publishing(server.stubs) as call:
        for number in range(8):
            await call.write(pb.PublishEventsRequest(batches=[batch_of(a_run_of(4), run_id=f"run-{number}")]))
        for _ in range(8):
            await answer(call)
    after = scrape(server)
    assert after("store_commit_changes_sum") - before("store_commit_changes_sum") == 8
    assert 1 <= after("store_commit_changes_count") - before("store_commit_changes_count") <= 8


async def test_a_draining_server_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert scrape(server)("draining") == 0
        with server.app.calls.entered(lambda: None):
            stopping = asyncio.create_task(server.app.stop())
            await until(lambda: scrape(server)("draining") == 1)
        await stopping


async def test_a_restart_counts_from_zero_and_servers_do_not_mix(tmp_path: Path) -> None:
    async with serving(tmp_path / "a") as one, serving(tmp_path / "b") as two:
        await ended_run(one.stubs, size=4)
        await streamed(one.stubs)
        assert [scrape(server)("store_events_total") for server in (one, two)] == [4, 0]
        assert [endings(server) for server in (one, two)] == [{"RUN_FINISHED": 1}, {}]
    async with serving(tmp_path / "a") as again:
        assert scrape(again)("store_events_total") == 0
        assert endings(again) == {}


async def test_labels_are_few_and_name_no_run_or_consumer(server: Server) -> None:
    await ended_run(server.stubs, "run-of-mine", size=4)
    await streamed(server.stubs, run_id="run-of-mine", consumer_id="reader-of-mine")
    with refused("RUN_NOT_FOUND"):
        await append(server.stubs, a_run_of(2, finished=False), run_id="not-of-mine")
    families = [family for family in scrape(server).families if family.name.startswith("lavant_")]
    labels = [sample.labels for family in families for sample in family.samples]
    assert {name for one in labels for name in one} == {
        *("protocol", "grpc", "le", "outcome", "python", "quota", "reason", "source", "tenant", "version")
    }
    assert not [value for one in labels for value in one.values() if "mine" in value]
    assert all(family.documentation for family in families)


@pytest.mark.parametrize("name", ["process_cpu_seconds_total", "process_resident_memory_bytes"])
async def test_the_process_is_described(server: Server, name: str) -> None:
    assert scrape(server)(name) > 0
