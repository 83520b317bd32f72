"""Connections are cut at random, in the middle of frames: readers and producers neither lose nor repeat an event.

Many seeds: LAVANT_CHAOS_CYCLES=200 LAVANT_CHAOS_SEED=7 pytest tests/client/reading/test_under_cuts.py
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from functools import partial
from random import Random

import pytest

from lavant.client import AsyncClient, IdleTimeout
from lavant.client._async import transport
from lavant.client._reading.plan import Deltas
from lavant.client._sync import transport as sync_transport
from lavant.client._wire.status import Backoff
from lavant.v1.event_pb2 import Event
from support.calls import PATIENCE, until
from support.conversation import texts, without_deltas
from support.drivers import DRIVERS, Driver
from support.engines import bare
from support.events import custom, message_finished, message_started, run_finished, run_started, text_delta
from support.proxy import Proxy
from support.server import Server, ServerProcess, connected
from support.streams import append, create, publish, recorded

SIZE = 10_000
STEP = 100
WINDOW = 500  # events that a producer may be ahead of the reader, so that cuts find both at work
RESTARTS = 2
BOTH = {"least": 1 << 13, "most_up": 1 << 18, "most_down": 1 << 18}  # bytes: two calls share a connection
CUTS = 5  # fewer prove nothing
MOST: dict[Deltas, int] = {"all": 1 << 18, "merged": 1 << 16, "none": 1 << 14}  # bytes: modes differ in how many come
FIRST_SEED = int(os.environ.get("LAVANT_CHAOS_SEED", "1"))
SEEDS = range(FIRST_SEED, FIRST_SEED + max(1, int(os.environ.get("LAVANT_CHAOS_CYCLES", "0")) // 10))

pytestmark = [
    pytest.mark.parametrize("driver", DRIVERS, ids=lambda driver: type(driver).__name__),
    pytest.mark.parametrize("seed", SEEDS),
]


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients try again soon: most connections are cut before a frame, and backoff would take most of the time."""
    for connection in (transport.Connection, sync_transport.Connection):
        defaults = connection.__init__.__kwdefaults__ or {}
        monkeypatch.setitem(defaults, "new_backoff", partial(Backoff, initial=0.01, maximum=0.1))


class Reader:
    """What a reader was given, and how far it is."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._loop = asyncio.get_running_loop()
        self._progress = asyncio.Event()

    def take(self, event: Event) -> None:
        """Note an event, in whichever thread it comes."""
        self.events.append(event)
        self._loop.call_soon_threadsafe(self._progress.set)

    async def has_reached(self, sequence: int) -> None:
        """Wait until an event at or behind a sequence came."""
        while sequence > (self.events[-1].sequence if self.events else 0):
            self._progress.clear()
            async with asyncio.timeout(2 * PATIENCE):
                await self._progress.wait()


def said(size: int) -> list[Event]:
    """Events of a run between its first and its last: text, and every tenth something that no mode leaves out."""
    between = [custom(value_json=str(number)) if number % 10 == 9 else text_delta() for number in range(size - 4)]
    return [message_started(), *between, message_finished()]


def check(found: Sequence[Event], log: Sequence[Event], deltas: Deltas = "all") -> None:
    """Fail unless a reader was given the log in the way that it asked for."""
    if deltas == "merged":
        assert texts(found) == texts(log)
        sequences = [event.sequence for event in found]
        assert sequences == sorted(set(sequences))
        found, log = without_deltas(found), without_deltas(log)
    elif deltas == "none":
        log = without_deltas(log)
    differing = next((n for n, (one, other) in enumerate(zip(found, log, strict=False)) if one != other), None)
    assert (differing, len(found)) == (None, len(log))


def check_log(log: Sequence[Event], enqueued: Sequence[Event]) -> None:
    """Fail unless the log has what was enqueued, once and in order, between the run's first and last event."""
    assert [event.sequence for event in log] == [*range(1, len(enqueued) + 3)]
    assert (log[0].HasField("run_started"), log[-1].HasField("run_finished")) == (True, True)
    check(bare(log[1:-1]), bare(enqueued))


async def paced(events: Sequence[Event]) -> AsyncIterator[Event]:
    """Yield events step by step, so that a producer's sender gets its turns."""
    for number, event in enumerate(events, 1):
        if number % STEP == 0:
            await asyncio.sleep(0)
        yield event


async def behind(reader: Reader, events: Sequence[Event]) -> AsyncIterator[Event]:
    """Yield events no faster than a reader gets them."""
    for number, event in enumerate(events, 1):
        if number % STEP == 0:
            await reader.has_reached(number - WINDOW)
        yield event


@pytest.mark.parametrize("deltas", ["all", "merged", "none"])
async def test_a_recorded_run_is_read_once_and_in_order(
    server: Server, driver: Driver, seed: int, deltas: Deltas
) -> None:
    await create(server.stubs)
    await publish(server.stubs, [run_started(), *said(SIZE), run_finished()], batch_size=500)
    log = await recorded(server.stubs)
    async with Proxy(server.target, Random(seed), most_down=MOST[deltas] << 2) as proxy:
        while proxy.hits < CUTS:
            reader = Reader()
            await driver.read(proxy.target, "run", deltas, reader.take)
            check(reader.events, log, deltas)


@pytest.mark.parametrize("deltas", ["all", "merged", "none"])
async def test_a_run_is_read_while_it_is_published(server: Server, driver: Driver, seed: int, deltas: Deltas) -> None:
    await create(server.stubs)
    reader = Reader()
    batch: list[Event] = []
    first = 1
    async with Proxy(server.target, Random(seed), most_down=MOST[deltas]) as proxy, asyncio.TaskGroup() as tasks:
        tasks.create_task(driver.read(proxy.target, "run", deltas, reader.take))
        async for event in behind(reader, [run_started(), *said(SIZE), run_finished()]):
            batch.append(event)
            if len(batch) == STEP:
                await append(server.stubs, batch, first=first)
                first, batch = first + STEP, []
        if batch:
            await append(server.stubs, batch, first=first)
    check(reader.events, await recorded(server.stubs), deltas)
    proxy.check(at_least=CUTS)


async def test_a_producers_events_are_stored_once_and_in_order(server: Server, driver: Driver, seed: int) -> None:
    events = said(SIZE)
    async with Proxy(server.target, Random(seed), most_up=1 << 18, most_down=1 << 14) as proxy:
        await driver.publish(proxy.target, "run", paced(events))
    check_log(await recorded(server.stubs), events)
    proxy.check(at_least=CUTS)


async def test_a_producer_and_a_reader_at_once(server: Server, driver: Driver, seed: int) -> None:
    events = said(SIZE)
    reader = Reader()
    async with (
        Proxy(server.target, Random(seed), **BOTH) as proxy,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(driver.read(proxy.target, "run", "all", reader.take))
        tasks.create_task(driver.publish(proxy.target, "run", behind(reader, events)))
    log = await recorded(server.stubs)
    check_log(log, events)
    check(reader.events, log)
    proxy.check(at_least=3)


async def test_over_kills_of_the_server_too(server_process: ServerProcess, driver: Driver, seed: int) -> None:
    random = Random(seed)
    events = said(SIZE)
    reader = Reader()
    async with (
        Proxy(server_process.target, random, **BOTH) as proxy,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(driver.read(proxy.target, "run", "all", reader.take))
        tasks.create_task(driver.publish(proxy.target, "run", behind(reader, events)))
        for number in range(RESTARTS):
            await reader.has_reached(random.randrange(1, SIZE // (RESTARTS + 1)) + number * SIZE // (RESTARTS + 1))
            assert reader.events[-1].sequence < len(events), "invalid: a kill found nobody at work"
            await server_process.restart()
    async with connected(server_process.target) as stubs:
        log = await recorded(stubs)
    check_log(log, events)
    check(reader.events, log)
    proxy.check(at_least=3)


async def test_a_server_that_stalls_is_waited_for(server: Server, driver: Driver, seed: int) -> None:
    events = said(SIZE)
    reader = Reader()
    async with Proxy(server.target, Random(seed)) as proxy, asyncio.TaskGroup() as tasks:
        tasks.create_task(driver.read(proxy.target, "run", "all", reader.take))
        tasks.create_task(driver.publish(proxy.target, "run", behind(reader, events)))
        await reader.has_reached(SIZE // 4)
        proxy.stall()
        await until(lambda: proxy.is_holding)
        async with AsyncClient(proxy.target, options=[("grpc.use_local_subchannel_pool", 1)]) as other:
            with pytest.raises(IdleTimeout):
                await anext(other.runs.stream("run", idle_timeout=0.2))
        proxy.release()
    log = await recorded(server.stubs)
    check_log(log, events)
    check(reader.events, log)
