"""What most tests of the service do first: create runs, append to them, wait for the server."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import (
    AppendEventsRequest,
    BatchAnswer,
    BatchReceipt,
    CancelRequest,
    ListEventsRequest,
    PublishEventsRequest,
    PublishEventsResponse,
)
from lavant.v1.run_pb2 import Run, RunSettings
from lavant.v1.run_service_pb2 import CreateRunRequest, GetRunRequest
from support.events import a_run_of, batch_of
from support.server import Stubs

if TYPE_CHECKING:
    from grpc.aio import StreamStreamCall

PATIENCE = 30.0


async def create(stubs: Stubs, run_id: str = "run", **settings: Any) -> Run:
    """Create a run."""
    request = CreateRunRequest(run_id=run_id, settings=RunSettings(**{"name": "weather", **settings}))
    return (await stubs.runs.CreateRun(request)).run


async def append(stubs: Stubs, events: Iterable[Event] = (), **numbers: Any) -> BatchReceipt:
    """Append a batch; the numbers are those of `batch_of`."""
    return (await stubs.events.AppendEvents(AppendEventsRequest(batch=batch_of(events, **numbers)))).receipt


async def ended_run(stubs: Stubs, run_id: str = "run", size: int = 4, **settings: Any) -> None:
    """Create a run and let it run through."""
    await create(stubs, run_id, **settings)
    await append(stubs, a_run_of(size), run_id=run_id)


async def get(stubs: Stubs, run_id: str = "run") -> Run:
    """Return a run."""
    return (await stubs.runs.GetRun(GetRunRequest(run_id=run_id))).run


async def listed(stubs: Stubs, run_id: str = "run") -> list[Event]:
    """All recorded events of a run, in pages."""
    found: list[Event] = []
    token = ""
    while True:
        page = await stubs.events.ListEvents(ListEventsRequest(run_id=run_id, page_token=token, page_size=1_000))
        found += page.events
        token = page.next_page_token
        if not page.events or not token:
            return found


class PublishCall:
    """A PublishEvents call, whose answers and cancel requests are read one by one, however they were grouped."""

    def __init__(self, call: "StreamStreamCall[PublishEventsRequest, PublishEventsResponse]") -> None:
        self.call = call
        self.write, self.done_writing, self.code = call.write, call.done_writing, call.code
        self._answers: deque[BatchAnswer] = deque()
        self._cancel_requests: deque[CancelRequest] = deque()

    async def answer(self) -> BatchAnswer:
        """Return the next answer; raises the call's status if it has ended."""
        while not self._answers:
            assert await self._read(), "the call ended with OK"
        return self._answers.popleft()

    async def cancel_request(self) -> CancelRequest:
        """Return the next cancel request; raises the call's status if it has ended."""
        while not self._cancel_requests:
            assert await self._read(), "the call ended with OK"
        return self._cancel_requests.popleft()

    async def rest(self) -> list[BatchAnswer | CancelRequest]:
        """Return what comes until the call ends with OK, or raise its status."""
        while await self._read():
            pass
        found: list[BatchAnswer | CancelRequest] = [*self._answers, *self._cancel_requests]
        self._answers.clear()
        self._cancel_requests.clear()
        return found

    async def _read(self) -> bool:
        response = await self.call.read()
        if not isinstance(response, PublishEventsResponse):
            return False
        self._answers += response.answers
        self._cancel_requests += response.cancel_requests
        return True


@asynccontextmanager
async def publishing(stubs: Stubs) -> AsyncIterator[PublishCall]:
    """A PublishEvents call, cancelled at the block's end."""
    call = stubs.events.PublishEvents(timeout=PATIENCE)
    try:
        yield PublishCall(call)
    finally:
        call.cancel()


async def publish(call: PublishCall, events: Iterable[Event] = (), **numbers: Any) -> None:
    """Send a batch; the numbers are those of `batch_of`."""
    await call.write(PublishEventsRequest(batches=[batch_of(events, **numbers)]))


async def answer(call: PublishCall) -> BatchAnswer:
    """Read the next answer; raises the call's status if it has ended."""
    return await call.answer()


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for what no event reports; servers in this process and in others run meanwhile."""
    async with asyncio.timeout(PATIENCE):
        while True:
            met = condition()
            if met if isinstance(met, bool) else await met:
                return
            await asyncio.sleep(0.001)
