"""Opened first, then events, caught_up once, heartbeats in silence, end last: the same for every reader."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from lavant.server.model import ConsumerKey, RunKey
from lavant.server.store.chunk import Chunk
from lavant.server.store.sqlite import SQLiteEngine
from lavant.server.streaming.subscription import Subscription
from lavant.v1 import event_service_pb2 as pb
from lavant.v1.event_pb2 import EventType
from lavant.v1.run_pb2 import Run
from support.calls import until
from support.clock import ManualClock
from support.events import a_run_of, batch_of, custom, run_finished, text_delta
from support.server import Server, serving
from support.streaming import Written, delivered, options, streaming
from support.streams import (
    append,
    create,
    kind,
    opened,
    publish,
    read,
    read_to_end,
    read_until,
    recorded,
    stream,
    streamed,
)

HEARTBEAT = 1.25
EVERY = timedelta(seconds=HEARTBEAT)
FRAME = 256 * 1024


async def test_the_order_of_a_live_stream(timed_server: Server, clock: ManualClock) -> None:
    events = a_run_of(10)
    await create(timed_server.stubs)
    await publish(timed_server.stubs, events[:4], batch_size=2)
    call = stream(timed_server.stubs, heartbeat_interval=EVERY)
    frames = await read_until(call, "caught_up")
    await clock.awaited(HEARTBEAT)
    clock.advance(HEARTBEAT)
    await read_until(call, "heartbeat", frames)
    await publish(timed_server.stubs, events[4:], first=5)
    await read_to_end(call, frames)
    assert frames.kinds == ["opened", "events", "caught_up", "heartbeat", "events", "end"]
    assert frames.sequences == list(range(1, 11))
    assert frames.last.end.reason == pb.STREAM_END_REASON_RUN_FINISHED


async def test_what_the_first_frame_says(timed_server: Server, clock: ManualClock) -> None:
    await create(timed_server.stubs)
    await publish(timed_server.stubs, a_run_of(4, finished=False))
    first = (await read(stream(timed_server.stubs, heartbeat_interval=EVERY))).opened
    assert (first.run.run_id, first.run.last_sequence) == ("run", 4)
    assert first.heartbeat_interval.ToNanoseconds() == HEARTBEAT * 1e9
    assert 1_620 <= first.max_age.ToSeconds() <= 1_980
    assert first.fence > 0


async def test_heartbeats_come_in_silence_only(timed_server: Server, clock: ManualClock) -> None:
    stubs = timed_server.stubs
    await create(stubs)
    await append(stubs, a_run_of(2, finished=False))
    call = stream(stubs, heartbeat_interval=EVERY)
    frames = await read_until(call, "caught_up")
    for sequence in range(3, 7):
        await clock.awaited(HEARTBEAT)
        clock.advance(0.75)
        await append(stubs, [text_delta()], first=sequence)
        await read_until(call, "events", frames)
    spoke_ns = clock.time_ns()
    await clock.awaited(HEARTBEAT)
    clock.advance(HEARTBEAT)
    await read_until(call, "heartbeat", frames)
    assert frames.kinds == ["opened", "events", "caught_up", *["events"] * 4, "heartbeat"]
    beat = frames.last.heartbeat
    assert beat.server_time.ToNanoseconds() == clock.time_ns()
    assert beat.producer_seen_time.ToNanoseconds() == spoke_ns
    assert beat.last_sequence == 6


async def test_a_sign_of_life_shows_in_the_next_heartbeat(timed_server: Server, clock: ManualClock) -> None:
    stubs = timed_server.stubs
    await create(stubs)
    await append(stubs, a_run_of(2, finished=False))
    call = stream(stubs, heartbeat_interval=EVERY)
    await read_until(call, "caught_up")
    await clock.awaited(HEARTBEAT)
    clock.advance(0.5)
    seen_ns = clock.time_ns()
    await append(stubs, [], first=3)
    await clock.awaited(HEARTBEAT - 0.5)
    clock.advance(HEARTBEAT - 0.5)
    beat = (await read_until(call, "heartbeat")).last.heartbeat
    assert beat.producer_seen_time.ToNanoseconds() == seen_ns


async def test_the_token_moves_past_what_the_filter_leaves_out(timed_server: Server, clock: ManualClock) -> None:
    stubs = timed_server.stubs
    await create(stubs)
    await append(stubs, a_run_of(2, finished=False))
    call = stream(stubs, heartbeat_interval=EVERY, types=[EventType.EVENT_TYPE_CUSTOM])
    await read_until(call, "caught_up")
    await publish(stubs, [text_delta(), text_delta(), custom(), text_delta()], first=3)
    frames = await read_until(call, "events")
    await clock.awaited(HEARTBEAT)
    clock.advance(HEARTBEAT)
    await read_until(call, "heartbeat", frames)
    assert frames.sequences == [5]
    everything = [value for value in EventType.values() if value]
    rest = await streamed(stubs, consumer_id="b", resume_token=frames.last.resume_token, types=everything, stop=2)
    assert rest.sequences == []


class PonderousEngine(SQLiteEngine):
    """Takes a second of the test's clock for each look into the log."""

    clock: ManualClock

    async def read(self, key: RunKey, after: int, max_bytes: int, created_ns: int | None = None) -> Sequence[Chunk]:
        self.clock.advance(1)
        return await super().read(key, after, max_bytes, created_ns)


async def test_heartbeats_come_while_nothing_of_a_long_replay_is_shown(tmp_path: Path, clock: ManualClock) -> None:
    key = RunKey("acme", "run")
    engine = await PonderousEngine.open(tmp_path / "lavant.db", clock)
    assert isinstance(engine, PonderousEngine)
    engine.clock = clock
    await engine.create_run(key, Run(name="weather"))
    events = [*a_run_of(2, finished=False), *(text_delta("x" * 100_000) for _ in range(20)), run_finished()]
    for start in range(0, len(events), 5):
        await engine.append(key, batch_of(events[start : start + 5], first=1 + start))
    only_ends = 1 << EventType.EVENT_TYPE_RUN_FINISHED
    shared, written = streaming(engine, clock), Written()
    await delivered(shared, options(key, types=only_ends, heartbeat_interval=1.5), written)
    beats = written.frames.kinds.count("heartbeat")
    assert beats >= 2
    assert written.frames.kinds == ["opened", *["heartbeat"] * beats, "events", "caught_up", "end"]
    await shared.leases.close()
    await engine.close()


@dataclass
class Bytes:
    """Keeps the frames of one call as they are."""

    frames: list[bytes] = field(default_factory=list)

    async def write(self, data: bytes) -> None:
        self.frames.append(data)


async def test_readers_at_the_same_position_are_sent_the_same_bytes(tmp_path: Path, clock: ManualClock) -> None:
    key = RunKey("acme", "run")
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", clock)
    await engine.create_run(key, Run(name="weather"))
    await engine.append(key, batch_of(a_run_of(2, finished=False)))
    shared = streaming(engine, clock)
    asked = {name: options(key) for name in ("one", "two")} | {"filtered": options(key, types=1 << 1)}
    written = {name: Bytes() for name in asked}
    streams = [
        asyncio.create_task(
            Subscription(shared, replace(asked[name], consumer=ConsumerKey(key, name)), written[name].write).deliver()
        )
        for name in asked
    ]
    await until(lambda: all(one.frames for one in written.values()))
    await engine.append(key, batch_of([text_delta(), run_finished()], first=3))
    await asyncio.gather(*streams)
    one, two, filtered = ([*written[name].frames] for name in asked)
    assert len(one) == len(two) == 3
    assert one[1] is two[1]
    assert one[1] not in filtered
    await shared.leases.close()
    await engine.close()


async def test_a_reader_that_starts_beyond_the_tails_memory(tmp_path: Path) -> None:
    events = a_run_of(900)
    for event in events[2:-2]:
        event.text_delta.text = "x" * 900
    async with serving(tmp_path, tail_bytes=1 << 16) as server:
        await create(server.stubs)
        await publish(server.stubs, events[:300], batch_size=50)
        first = await opened(server.stubs, consumer_id="first")
        await publish(server.stubs, events[300:600], batch_size=50, first=301)
        others = [stream(server.stubs, consumer_id=f"{number}") for number in range(3)]
        await publish(server.stubs, events[600:], batch_size=50, first=601)
        for call in (first, *others):
            assert (await read_to_end(call)).sequences == list(range(1, 901))


async def test_many_readers_of_one_run_get_the_same(server: Server) -> None:
    events = a_run_of(400)
    await create(server.stubs)
    producer = asyncio.create_task(publish(server.stubs, events, batch_size=7))
    readers = (streamed(server.stubs, consumer_id=f"reader-{number}") for number in range(25))
    everything = await asyncio.gather(*readers)
    await producer
    log = await recorded(server.stubs)
    for frames in everything:
        assert frames.events == log
        assert frames.kinds[0] == "opened"
        assert frames.kinds.count("caught_up") == 1
        assert frames.kinds[-1] == "end"


@pytest.mark.parametrize("finished", [True, False])
async def test_an_event_larger_than_a_frame(server: Server, finished: bool) -> None:
    huge = text_delta("x" * 700_000)
    events = [*a_run_of(2, finished=False), text_delta("a"), huge, text_delta("b"), run_finished()]
    await create(server.stubs)
    call = None if finished else await opened(server.stubs)
    await publish(server.stubs, events)
    frames = await read_to_end(call or stream(server.stubs))
    assert frames.sequences == [1, 2, 3, 4, 5, 6]
    assert frames.events[3].text_delta.text == "x" * 700_000


@pytest.mark.parametrize("mode", [pb.DELTA_MODE_ALL, pb.DELTA_MODE_MERGED])
@pytest.mark.parametrize("batch_size", [3, 500])
async def test_frames_are_full_but_not_too_large(
    server: Server, batch_size: int, mode: "pb.DeltaMode.ValueType"
) -> None:
    events = [*a_run_of(2, finished=False), *(text_delta("x" * 1_500) for _ in range(1_200)), run_finished()]
    await create(server.stubs)
    await publish(server.stubs, events, batch_size=batch_size)
    frames = await streamed(server.stubs, deltas=mode)
    sizes = [frame.events.ByteSize() for frame in frames.all if kind(frame) == "events"]
    assert max(sizes) <= FRAME
    assert min(sizes[:-1]) > FRAME / 2
