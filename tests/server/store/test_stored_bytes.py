"""How much each tenant has stored, as engines count it."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from lavant.server.model import RunKey
from lavant.server.store.jetstream import JetStreamEngine
from lavant.server.store.port import Engine
from lavant.server.store.sqlite import SQLiteEngine
from lavant.v1.event_pb2 import Event
from support.calls import until
from support.clock import ManualClock
from support.engines import KEY, created
from support.events import batch_of, custom, run_finished, run_started, sized

Open = Callable[[], Awaitable[Engine]]


async def stored_size(engine: Engine, key: RunKey) -> int:
    """Return the bytes of the events that can be read of a run."""
    size = after = 0
    while chunks := await engine.read(key, after, 1 << 20):
        size += sum(len(chunk.data) for chunk in chunks)
        after = chunks[-1].last_sequence
    return size


async def append(engine: Engine, key: RunKey, events: Sequence[Event], first: int = 1) -> None:
    await engine.append(key, batch_of(events, first=first, run_id=key.run_id))


async def test_stored_bytes_are_those_of_the_events_until_a_run_is_deleted(engine: Engine) -> None:
    other = RunKey("acme", "other")
    for key in (KEY, other):
        await created(engine, key)
        await append(engine, key, [run_started(), custom()])
    large = sized(10_000)
    for _ in range(2):  # stored once
        await append(engine, KEY, [large], first=3)
    assert engine.stored_bytes("acme") == await stored_size(engine, KEY) + await stored_size(engine, other)
    assert engine.stored_bytes("acme") > 10_000
    assert engine.stored_bytes("default") == 0
    await append(engine, KEY, [run_finished()], first=4)
    await engine.delete_run(KEY)
    left = await stored_size(engine, other)
    await until(lambda: engine.stored_bytes("acme") == left)


@pytest.fixture(params=["sqlite", pytest.param("jetstream", marks=pytest.mark.nats)])
def open_engine(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Open:
    """Opens an engine on the store of the test."""
    if request.param == "sqlite":
        return lambda: SQLiteEngine.open(tmp_path / "lavant.db", clock)
    location = request.getfixturevalue("location")
    return lambda: JetStreamEngine.open(location, clock)


async def test_stored_bytes_outlive_a_restart(open_engine: Open) -> None:
    engine = await open_engine()
    await created(engine)
    await append(engine, KEY, [run_started(), *(custom() for _ in range(99))])
    await append(engine, KEY, [run_finished()], first=101)
    before = engine.stored_bytes("acme")
    await engine.close()
    engine = await open_engine()
    assert engine.stored_bytes("acme") == before == await stored_size(engine, KEY)
    await engine.delete_run(KEY)
    await until(lambda: not engine.stored_bytes("acme"))
    await engine.close()


async def test_growth_of_an_open_run_is_counted_once_over_a_restart(open_engine: Open) -> None:
    engine = await open_engine()
    await created(engine)
    await append(engine, KEY, [run_started()])
    await append(engine, KEY, [sized(5_000)], first=2)
    await engine.close()
    engine = await open_engine()
    await append(engine, KEY, [sized(5_000)], first=3)
    await append(engine, KEY, [run_finished()], first=4)
    size = await stored_size(engine, KEY)
    await until(lambda: engine.stored_bytes("acme") == size)
    await engine.close()


@pytest.mark.nats
async def test_replicas_count_what_others_append(replicas: Sequence[JetStreamEngine]) -> None:
    one, two = replicas
    await created(one)
    await append(one, KEY, [run_started()])
    for first in range(2, 12):  # more than 4 MiB, in an open run
        await append(one, KEY, [sized(500_000)], first=first)
    await until(lambda: two.stored_bytes("acme") > 4 << 20)
    await append(two, KEY, [sized(1_000)], first=12)  # the run moves
    await append(one, KEY, [sized(1_000)], first=13)
    await append(one, KEY, [run_finished()], first=14)
    size = await stored_size(one, KEY)
    for engine in replicas:
        await until(lambda engine=engine: engine.stored_bytes("acme") == size)  # type: ignore[misc]
    await two.delete_run(KEY)
    for engine in replicas:
        await until(lambda engine=engine: not engine.stored_bytes("acme"))  # type: ignore[misc]
