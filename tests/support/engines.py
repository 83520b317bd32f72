"""What tests of engines have in common."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import pytest

from lavant.server.errors import ServiceError
from lavant.server.model import RunKey
from lavant.server.store.port import Engine, Notice, Watch
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import EventBatch
from lavant.v1.run_pb2 import Run
from support.events import batch_of, message_started, run_started

KEY = RunKey("acme", "run")
PATIENCE = 30.0


@contextmanager
def refused(reason: str) -> Iterator[pytest.ExceptionInfo[ServiceError]]:
    """Expect a ServiceError with this reason, given without its prefix."""
    with pytest.raises(ServiceError) as caught:
        yield caught
    assert ErrorReason.Name(caught.value.reason) == f"ERROR_REASON_{reason}"


async def created(engine: Engine, key: RunKey = KEY, run: Run | None = None) -> RunKey:
    """Create a run."""
    await engine.create_run(key, run or Run(name="weather"))
    return key


async def started(engine: Engine, key: RunKey = KEY, run: Run | None = None) -> RunKey:
    """Create a run and append its first two events, by producer "p"."""
    await created(engine, key, run)
    await engine.append(key, batch_of([run_started(), message_started()]))
    return key


async def stored(engine: Engine, key: RunKey = KEY, after: int = 0, max_bytes: int = 1 << 20) -> list[Event]:
    """Read all events behind a sequence, as a reader does."""
    found: list[Event] = []
    while chunks := await engine.read(key, after, max_bytes):
        for chunk in chunks:
            assert chunk.first_sequence <= after + 1
            events = EventBatch.FromString(chunk.data).events
            found += [event for event in events if event.sequence > after]
            after = chunk.last_sequence
    return found


async def watch_changes_of(engine: Engine, key: RunKey, callback: Callable[[Notice], None]) -> Watch:
    """Watch a run from after its snapshot on."""
    begun = asyncio.Event()

    def call_back(notice: Notice) -> None:
        if begun.is_set():
            callback(notice)
        begun.set()

    watch = engine.watch(key, call_back)
    await asyncio.wait_for(begun.wait(), PATIENCE)
    return watch


async def pending_cancel(engine: Engine, key: RunKey = KEY) -> str | None:
    """Return the reason of a cancel request that is pending, from the snapshot of a run."""
    snapshots: asyncio.Queue[Notice] = asyncio.Queue()
    watch = engine.watch(key, snapshots.put_nowait)
    try:
        return (await asyncio.wait_for(snapshots.get(), PATIENCE)).cancel_reason
    finally:
        watch.close()


def bare(events: Iterable[Event]) -> list[Event]:
    """Copies without what the server sets, for comparison."""
    copies = []
    for event in events:
        copy = Event()
        copy.CopyFrom(event)
        copy.ClearField("sequence")
        copy.ClearField("record_time")
        copies.append(copy)
    return copies
