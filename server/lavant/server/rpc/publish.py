"""PublishEvents: batches of many runs over one call, each acknowledged once durable."""

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

from grpc import aio

from lavant.server.errors import LavantError, unavailable
from lavant.server.measures import AppendMeasures
from lavant.server.model import RunKey, is_terminal
from lavant.server.rpc.appends import Appends
from lavant.server.rpc.dispatch import Call, parse
from lavant.server.rpc.status import to_status
from lavant.server.store.port import Engine, Notice, Watch
from lavant.server.streaming.calls import Calls
from lavant.server.streaming.outlet import Outlet
from lavant.v1.event_service_pb2 import (
    AppendEventsRequest,
    BatchReceipt,
    CancelRequest,
    PublishEventsRequest,
    PublishEventsResponse,
)

_MAX_UNANSWERED = 256  # batches that one call may have under way
_MAX_UNANSWERED_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """Serves PublishEvents calls. `stall_limit` is in seconds."""

    engine: Engine
    calls: Calls
    stall_limit: float
    measures: AppendMeasures = field(default_factory=AppendMeasures)

    async def append(self, request: AppendEventsRequest, call: Call) -> BatchReceipt:
        """Append one batch; returns once it is durable."""
        began = asyncio.get_running_loop().time()
        return await Appends(self.engine, self.measures).append(call.tenant, request.batch, began)

    async def publish_events(self, call: Call) -> None:
        """See the contract."""
        publication = Publication(self.engine, call, Outlet(call.write, self.stall_limit), self.measures)
        with self.calls.entered(publication.stop):
            await publication.run()


class _Batch(NamedTuple):
    """A batch that was taken in: its run, its size as sent, and its receipt once there is one."""

    key: RunKey
    size: int
    receipt: asyncio.Future[BatchReceipt]


class _CancelNotice(NamedTuple):
    """Somebody wants a run to stop."""

    key: RunKey
    reason: str


class Publication:
    """One PublishEvents call: batches in, answers out in the order of the batches.

    Reads ahead while earlier batches are being committed, up to a bound in number and in bytes.
    When asked to stop, or at a message that is none, it answers all that it took in before it ends.
    """

    def __init__(self, engine: Engine, call: Call, outlet: Outlet, measures: AppendMeasures | None = None) -> None:
        self._engine = engine
        self._appends = Appends(engine, measures)
        self._call = call
        self._outlet = outlet
        self._taken_in: asyncio.Queue[_Batch | _CancelNotice | None] = asyncio.Queue()
        self._unanswered = self._unanswered_bytes = 0
        self._room = asyncio.Event()
        self._watches: dict[RunKey, Watch] = {}
        self._told_to_cancel: set[RunKey] = set()
        self._reading: asyncio.Timeout | None = None
        self._stopped = False

    def stop(self) -> None:
        """Take in no more."""
        self._stopped = True
        if self._reading is not None and not self._reading.expired():
            self._reading.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Serve the call until the client has sent all, or until asked to stop."""
        writer = asyncio.get_running_loop().create_task(self._answer_all())
        writer.add_done_callback(lambda _: self.stop())
        try:
            failure = await self._take_in_all()
            self._taken_in.put_nowait(None)
            await writer
            if failure is not None:
                raise failure
        finally:
            writer.cancel()
            self._drop_unanswered()
            for watch in self._watches.values():
                watch.close()

    async def _take_in_all(self) -> LavantError | None:
        """Read to the client's end; returns what else put an end to it."""
        try:
            async with asyncio.timeout(None) as self._reading:
                while not self._stopped:
                    data = await self._call.read()
                    if data is aio.EOF:
                        return None
                    self._take_in(data)
                    await self._have_room()
        except LavantError as error:
            return error
        except TimeoutError:
            pass
        finally:
            self._reading = None
        return unavailable("the server is shutting down; send again what is not acknowledged")

    def _take_in(self, data: bytes) -> None:
        began = asyncio.get_running_loop().time()
        batch = parse(PublishEventsRequest, data).batch
        key = RunKey(self._call.tenant, batch.run_id)
        receipt = self._appends.append(self._call.tenant, batch, began)
        self._unanswered += 1
        self._unanswered_bytes += len(data)
        self._taken_in.put_nowait(_Batch(key, len(data), receipt))

    def _drop_unanswered(self) -> None:
        """Nobody is left for these receipts; their batches are stored all the same."""
        while not self._taken_in.empty():
            if isinstance(item := self._taken_in.get_nowait(), _Batch):
                item.receipt.cancel()

    async def _have_room(self) -> None:
        while self._unanswered >= _MAX_UNANSWERED or self._unanswered_bytes >= _MAX_UNANSWERED_BYTES:
            self._room.clear()
            await self._room.wait()

    async def _answer_all(self) -> None:
        while (item := await self._taken_in.get()) is not None:
            if isinstance(item, _CancelNotice):
                await self._tell_to_cancel(item)
            else:
                await self._answer(item)

    async def _answer(self, batch: _Batch) -> None:
        response = PublishEventsResponse(run_id=batch.key.run_id)
        try:
            response.receipt.CopyFrom(await batch.receipt)
        except LavantError as error:
            response.rejection.CopyFrom(to_status(error))
        await self._outlet.send(response.SerializeToString())
        self._unanswered -= 1
        self._unanswered_bytes -= batch.size
        self._room.set()
        if response.HasField("receipt") and batch.key not in self._watches:
            await self._watch_for_cancel(batch.key)

    async def _watch_for_cancel(self, key: RunKey) -> None:
        """Pass on a CancelRun from now on, and one that came before."""

        def look(notice: Notice) -> None:
            if notice.cancel_reason is not None and key not in self._told_to_cancel:
                self._told_to_cancel.add(key)
                self._taken_in.put_nowait(_CancelNotice(key, notice.cancel_reason))
            if notice.sealed or notice.deleted:
                self._told_to_cancel.discard(key)
                self._watches.pop(key).close()

        self._watches[key] = watch = self._engine.watch(key, look)
        try:
            ended = is_terminal((await self._engine.get_run(key)).state)
            reason = await self._engine.pending_cancel(key)
        except LavantError:  # deleted since, or damaged: that is no reason to end the other runs' call
            ended, reason = True, None
        if ended and self._watches.get(key) is watch:
            self._watches.pop(key).close()
        if reason is not None and key not in self._told_to_cancel:
            self._told_to_cancel.add(key)
            await self._tell_to_cancel(_CancelNotice(key, reason))

    async def _tell_to_cancel(self, notice: _CancelNotice) -> None:
        request = CancelRequest(reason=notice.reason)
        response = PublishEventsResponse(run_id=notice.key.run_id, cancel_request=request)
        await self._outlet.send(response.SerializeToString())
