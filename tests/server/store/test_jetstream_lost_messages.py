"""Answers of JetStream of which a part gets lost on the way: nothing is taken for whole that is not."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from lavant.server.clock import SystemClock
from lavant.server.errors import ServiceError
from lavant.server.model import RunKey
from lavant.server.store.jetstream import Connection, JetStreamEngine, Location, Unanswered, connection
from lavant.server.store.jetstream.messages import Messages
from lavant.server.store.port import RunQuery
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import EventBatch
from support.engines import KEY, bare, created, started, stored
from support.events import batch_of, custom, message_started, run_finished, run_started
from support.lossy_nats import Loses, LossyNats, acknowledgement, end_of_batch, nth_of_batch
from support.nats import NatsServer

SIZE = 24
LOSSES: dict[str, Callable[[], Loses]] = {
    "first": lambda: nth_of_batch(1),
    "second": lambda: nth_of_batch(2),
    "middle": lambda: nth_of_batch(SIZE // 2),
    "last": lambda: nth_of_batch(SIZE + 1),  # the first is the creation's
    "end": lambda: end_of_batch,
}


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_LIMIT", 0.3)


@pytest.fixture
async def way(nats: NatsServer) -> AsyncIterator[LossyNats]:
    async with LossyNats(nats.address) as opened:
        yield opened


@pytest.fixture
async def log(location: Location) -> list[Event]:
    """The events of a run, each in a message of its own."""
    engine = await JetStreamEngine.open(location, SystemClock())
    await created(engine)
    events = [run_started(), message_started(), *(custom() for _ in range(SIZE - 3)), run_finished()]
    for number, event in enumerate(events, start=1):
        await engine.append(KEY, batch_of([event], first=number))
    found = await stored(engine)
    assert len(found) == SIZE
    await engine.close()
    return found


def over(way: LossyNats, location: Location) -> Location:
    """The same store, reached by another way."""
    return Location((f"nats://{way.address}",), location.name)


async def patiently(read: Callable[[], Any]) -> Any:
    """Read as a stream does: again, when the store is out of reach."""
    for _ in range(5):
        try:
            return await read()
        except ServiceError as error:
            if error.reason != ErrorReason.ERROR_REASON_UNAVAILABLE:
                raise
    raise AssertionError("the store stays out of reach")


@pytest.mark.parametrize("after", [0, 10])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
async def test_a_reader_gets_every_event_whatever_is_lost(
    location: Location, way: LossyNats, log: list[Event], loss: Callable[[], Loses], after: int
) -> None:
    engine = await JetStreamEngine.open(over(way, location), SystemClock())
    way.lose(loss())
    read: list[Event] = []
    while len(read) < SIZE - after:
        position = after + len(read)
        read += await patiently(partial(_read_once, engine, position))
    assert read == log[after:]
    await engine.close()


async def _read_once(engine: JetStreamEngine, after: int) -> list[Event]:
    """What one answer holds behind a sequence; nothing is missing in it."""
    chunks = await engine.read(KEY, after, 1 << 20)
    events = [event for chunk in chunks for event in EventBatch.FromString(chunk.data).events]
    found = [event for event in events if event.sequence > after]
    assert [event.sequence for event in found] == list(range(after + 1, after + 1 + len(found)))
    assert found, "the end of the log was taken to be here"
    return found


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
async def test_a_batch_that_is_cut_short_is_no_answer(
    location: Location, way: LossyNats, log: list[Event], loss: Callable[[], Loses]
) -> None:
    opened = await Connection.open(over(way, location))
    subjects = location.run(KEY)
    way.lose(loss())
    with pytest.raises(Unanswered):
        await Messages(opened).following(subjects.stream, subjects.all, 1, 1 << 20)
    assert len(way.lost) == 1
    assert len(await Messages(opened).following(subjects.stream, subjects.all, 1, 1 << 20)) >= SIZE
    await opened.close()


@pytest.mark.parametrize("number", [1, 2, 3, None])
async def test_lists_are_whole_whatever_is_lost_while_they_are_read(
    location: Location, way: LossyNats, number: int | None
) -> None:
    engine = await JetStreamEngine.open(location, SystemClock())
    keys = [RunKey("acme", f"run-{index}") for index in range(60)]
    for key in keys:
        await created(engine, key)
    await engine.close()
    way.lose(end_of_batch if number is None else nth_of_batch(number), times=3)
    engine = await JetStreamEngine.open(over(way, location), SystemClock())
    assert len(way.lost) == 3
    page = await engine.list_runs(RunQuery(tenant="acme", limit=100))
    assert {run.run_id for run in page.runs} == {key.run_id for key in keys}
    await engine.close()


async def test_an_append_whose_acknowledgement_is_lost_is_stored_once(location: Location, way: LossyNats) -> None:
    engine = await JetStreamEngine.open(over(way, location), SystemClock())
    await started(engine)
    event = custom()
    way.lose(acknowledgement)
    receipt = await engine.append(KEY, batch_of([event], first=3))
    assert len(way.lost) == 1
    assert (receipt.first_sequence, receipt.last_sequence) == (3, 3)
    again = await engine.append(KEY, batch_of([event], first=3))
    assert (again.first_sequence, again.duplicate) == (3, True)
    assert bare(await stored(engine))[2:] == [event]
    await engine.close()


async def test_a_refusal_of_a_read_is_not_taken_for_an_empty_log(location: Location, log: list[Event]) -> None:
    opened = await Connection.open(location)
    stream = location.run(KEY).stream
    with pytest.raises(Unanswered, match="status 408"):
        await opened.collect(f"$JS.API.DIRECT.GET.{stream}", b'{"seq": 1, "last_by_subj": "both"}')
    await opened.close()
