"""A producer and a reader that outlive their server: over raw stubs, so that only the server is under test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

from grpc import StatusCode, aio

from chaos.history import History, Seen
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import (
    BatchAnswer,
    PublishEventsRequest,
    PublishEventsResponse,
    StreamEndReason,
    StreamEventsRequest,
)
from support.events import a_run_of, batch_of
from support.server import ServerProcess, Stubs, connected

RUN = "run"
WINDOW = 64  # events that may be under way, so that a kill finds some
CUT = {StatusCode.UNAVAILABLE, StatusCode.CANCELLED, StatusCode.INTERNAL, StatusCode.UNKNOWN}


class Clients:
    """Publishes a run of a given size in small batches, and reads it, through whatever happens to the server.

    `up` is set while the server may be called; whoever kills it clears `up` first.
    """

    def __init__(self, process: ServerProcess, history: History, random: Random, size: int) -> None:
        self.up = asyncio.Event()
        self.acknowledged = 0
        self._process = process
        self._history = history
        self._events = a_run_of(size)
        self._batches = _cut(size, random)
        self._progress = asyncio.Condition()
        for number, event in enumerate(self._events, 1):
            event.event_id = f"said-{number}"
        history.invoked.update(event.event_id for event in self._events)

    async def progress(self, events: int) -> None:
        """Wait until so many events are acknowledged and read."""
        async with self._progress:
            await self._progress.wait_for(
                lambda: min(self.acknowledged, len(self._history.streamed)) >= min(events, len(self._events))
            )

    async def publish(self) -> None:
        """Send all events, again from the first that is not acknowledged after each cut."""
        while self.acknowledged < len(self._events):
            async with self._connection() as stubs:
                call = stubs.events.PublishEvents()
                sending = asyncio.create_task(self._send(call))
                try:
                    while self.acknowledged < len(self._events):
                        response = await call.read()
                        if not isinstance(response, PublishEventsResponse):
                            break
                        for answer in response.answers:
                            await self._note(answer)
                finally:
                    call.cancel()
                    sending.cancel()
                    await asyncio.wait({sending})

    async def read(self) -> None:
        """Read to the end of the run, with the last token after each cut."""
        token = ""
        attempt = 0
        while True:
            async with self._connection() as stubs:
                attempt += 1
                request = StreamEventsRequest(run_id=RUN, consumer_id="ui", session_id="s", attempt=attempt)
                if token:
                    request.resume_token = token
                first = True
                async for frame in stubs.events.StreamEvents(request):
                    token = frame.resume_token
                    if frame.events.events and first:
                        self._history.first_after_token.append(
                            (len(self._history.streamed), frame.events.events[0].sequence)
                        )
                        first = False
                    await self._take(list(frame.events.events))
                    if frame.end.reason == StreamEndReason.STREAM_END_REASON_RUN_FINISHED:
                        return

    async def _send(self, call: "aio.StreamStreamCall[PublishEventsRequest, PublishEventsResponse]") -> None:
        for start, stop in self._batches:
            if stop > self.acknowledged:
                await self._has_room_for(start)
                batch = batch_of(self._events[start:stop], first=start + 1)
                await call.write(PublishEventsRequest(batches=[batch]))

    async def _has_room_for(self, start: int) -> None:
        async with self._progress:
            await self._progress.wait_for(lambda: self.acknowledged >= start - WINDOW)

    async def _note(self, answer: BatchAnswer) -> None:
        assert answer.HasField("receipt"), answer
        receipt = answer.receipt
        size = receipt.last_sequence - receipt.first_sequence + 1
        last = receipt.last_producer_sequence
        for offset, event in enumerate(self._events[last - size : last]):
            known = self._history.acknowledged.setdefault(event.event_id, receipt.first_sequence + offset)
            assert known == receipt.first_sequence + offset, "the same batch was answered in two ways"
        self.acknowledged = max(self.acknowledged, last)
        await self._report()

    async def _take(self, events: list[Event]) -> None:
        self._history.streamed += [Seen(event.sequence, event.event_id) for event in events]
        await self._report()

    async def _report(self) -> None:
        async with self._progress:
            self._progress.notify_all()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Stubs]:
        """A new connection once the server is up; a cut one is no error."""
        await self.up.wait()
        try:
            async with connected(self._process.target) as stubs:
                yield stubs
        except aio.AioRpcError as error:
            if error.code() not in CUT:
                raise
            await asyncio.sleep(0)


def _cut(size: int, random: Random) -> list[tuple[int, int]]:
    """Cut events into batches that stay the same however often they are sent: where each starts and stops."""
    batches: list[tuple[int, int]] = []
    start = 0
    while start < size:
        stop = min(size, start + random.randint(1, 8))
        batches.append((start, stop))
        start = stop
    return batches
