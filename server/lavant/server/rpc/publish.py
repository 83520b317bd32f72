"""PublishEvents and AppendEvents: batches of producers, each acknowledged once it is durable."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from grpc import aio

from lavant.contract.limits import MAX_REQUEST_BATCHES
from lavant.server.auth.access import check_new_run
from lavant.server.auth.audit import Audit, CallSource
from lavant.server.auth.ownership import owner_of
from lavant.server.auth.principal import Principal, unauthenticated
from lavant.server.auth.run_quotas import RunQuotas
from lavant.server.clock import Clock
from lavant.server.errors import ServiceError, invalid_field, unavailable
from lavant.server.metrics import AppendMetrics
from lavant.server.model import RunKey
from lavant.server.rpc.bounds import bounds_check
from lavant.server.rpc.dispatch import Call, parse
from lavant.server.rpc.limits import PUBLISH
from lavant.server.rpc.producer_take_over import ProducerTakeOver
from lavant.server.rpc.status import to_status
from lavant.server.rpc.validation import check_callers_run, check_settings_size
from lavant.server.store.port import Engine, Notice, Watch
from lavant.server.streaming.calls import Calls, OpenCall
from lavant.server.streaming.frames import FrameWriter, StallWatch
from lavant.server.streaming.pacing import time_to_expiry
from lavant.v1.error_pb2 import ErrorReason, ProducerGap
from lavant.v1.event_service_pb2 import (
    AppendEventsRequest,
    AppendEventsResponse,
    BatchReceipt,
    CancelRequest,
    ProducerBatch,
    PublishEventsRequest,
    PublishEventsResponse,
)
from lavant.v1.run_pb2 import RunSettings

_check_settings = bounds_check(RunSettings, "batch.create")

_APPEND = "/lavant.v1.EventService/AppendEvents"
_MAX_UNANSWERED = 256  # batches that one call reads ahead of its answers
_MAX_UNANSWERED_BYTES = 8 << 20
_SNAPSHOT_LIMIT = 1.0  # seconds from the last answer to the runs' snapshots
_MAX_REJECTED = 10_000  # producers whose rejections one call remembers


class _Producer(NamedTuple):
    """Producer and epoch that number the events of a batch."""

    run: RunKey
    producer_id: str
    epoch: int


class _Batch(NamedTuple):
    """Batch that the engine has: its producer, first number and bytes, whether it ends the run, its receipt to come."""

    producer: _Producer
    first_producer_sequence: int
    size: int
    ends_run: bool
    receipt: asyncio.Future[BatchReceipt]


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """Appends batches, one per call or many over one call."""

    engine: Engine
    calls: Calls
    clock: Clock
    stalls: StallWatch
    quotas: RunQuotas
    audit: Audit
    metrics: AppendMetrics = field(default_factory=AppendMetrics)

    async def append_events(self, request: AppendEventsRequest, call: Call) -> AppendEventsResponse:
        """Append one batch; returns once it is durable."""
        return AppendEventsResponse(receipt=await self.append(call, request.batch, _APPEND))

    async def publish_events(self, call: Call) -> None:
        """Append all batches of a call, and answer each."""
        publication = Publication(self, call)
        entered = self.calls.entered(publication.stop, call.peer)
        with entered as publication.open_call, self._expiry_of(call, publication):
            await publication.run()

    @contextmanager
    def _expiry_of(self, call: Call, publication: "Publication") -> Iterator[None]:
        """Stop a publication before the credential of its call expires."""
        left = time_to_expiry(call.principal.expires_ns, self.clock.time_ns())
        timer = self.clock.call_at(self.clock.monotonic() + left, publication.expire) if left < float("inf") else None
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()

    def append(
        self, call: Call, batch: ProducerBatch, method: str, size: int | None = None
    ) -> asyncio.Future[BatchReceipt]:
        """Hand a batch of a call to the engine, and count its outcome. All failures come with the receipt.

        `size` is the number of the batch's bytes, if it is known.
        """
        principal = call.principal
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            check_callers_run("batch.run_id", batch.run_id)
            if batch.HasField("create"):
                _check_settings(batch.create)
                check_settings_size("batch.create", batch.create)
                check_new_run(principal, batch.run_id, batch.create)
            counted = self.quotas.admit_batch(principal, batch, size)
        except ServiceError as error:
            receipt: asyncio.Future[BatchReceipt] = loop.create_future()
            receipt.set_exception(error)
            if error.reason == ErrorReason.ERROR_REASON_QUOTA_EXCEEDED and error.retry_after is not None:
                self._keep_alive(principal, batch)
        else:
            key = RunKey(principal.tenant, batch.run_id)
            owner, take_over = owner_of(principal), None
            if owner.id and owner.may_take_over:
                resources = [f"run/{batch.run_id}", f"producer/{batch.producer_id}"]
                source = CallSource("grpc", call.peer, method)
                take_over = ProducerTakeOver(partial(self.audit.done, source, principal, resources))
                owner = take_over.noted_by(owner)
            receipt = self.engine.append(key, batch, owner, principal.restriction)
            if take_over is not None:
                receipt.add_done_callback(take_over.done)
            if counted is not None:
                receipt.add_done_callback(counted)
        receipt.add_done_callback(lambda done: self._count(done, began))
        return receipt

    def _keep_alive(self, principal: Principal, batch: ProducerBatch) -> None:
        """Store that a producer is alive that has to wait: its run must not be abandoned meanwhile."""
        alive = ProducerBatch(run_id=batch.run_id, producer_id=batch.producer_id, producer_epoch=batch.producer_epoch)
        self.engine.append(
            RunKey(principal.tenant, batch.run_id), alive, owner_of(principal), principal.restriction
        ).add_done_callback(_ignore)

    def _count(self, done: asyncio.Future[BatchReceipt], began: float) -> None:
        if done.cancelled():  # the call has ended; the batch is stored all the same
            return
        if (error := done.exception()) is not None:
            self.metrics.rejected(error)
            return
        receipt = done.result()
        if receipt.duplicate:
            self.metrics.answers["duplicate"] += 1
        elif not receipt.first_sequence:
            self.metrics.answers["empty"] += 1
        else:
            self.metrics.appended(done.get_loop().time() - began)


def _ignore(done: asyncio.Future[BatchReceipt]) -> None:
    """Retrieve an outcome that nobody needs, which would be logged otherwise."""
    if not done.cancelled():
        done.exception()


class Publication:
    """One PublishEvents call: reads batches, and answers them in their order, all that are durable in one response.

    Reads ahead while earlier batches are being committed, up to a bound in number and in bytes.
    When stopped, or at a message that cannot be parsed, it answers all batches that it has read before it ends.
    """

    def __init__(self, publisher: Publisher, call: Call) -> None:
        self._publisher = publisher
        self._engine = publisher.engine
        self._call = call
        self._writer = FrameWriter(call.write, publisher.stalls, self._let_go)
        self.open_call: OpenCall | None = None
        self._batches: deque[_Batch] = deque()  # in the order of the answers
        self._cancel_requests: list[CancelRequest] = []
        self._has_read_all = False
        self._changed = asyncio.Event()  # there is something to answer or to send, or all is read
        self._unanswered = self._unanswered_bytes = 0
        self._answered = asyncio.Event()
        self._rejected: dict[_Producer, None] = {}  # a dict is ordered: the oldest is removed first
        self._watches: dict[RunKey, Watch] = {}
        self._without_snapshot: set[RunKey] = set()  # watched runs
        self._cancelled: set[RunKey] = set()
        self._reading: asyncio.Timeout | None = None
        self._stopped = self._expired = False

    def expire(self) -> None:
        """Read no more batches, as the credential of the call is about to expire."""
        self._expired = True
        self.stop()

    def _let_go(self) -> None:
        """Read no more batches of a producer that does not read its answers."""
        if self.open_call is not None:
            self.open_call.stall()
        self.stop()

    def stop(self) -> None:
        """Read no more batches."""
        self._stopped = True
        if self._reading is not None and not self._reading.expired():
            self._reading.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Serve the call until the client has sent all, or until stopped."""
        writer = asyncio.get_running_loop().create_task(self._answer_all())
        writer.add_done_callback(lambda _: self.stop())
        try:
            failure = await self._read_all()
            self._has_read_all = True
            self._changed.set()
            await writer
            if failure is not None:
                raise failure
        finally:
            writer.cancel()
            for batch in self._batches:  # their receipts can no longer be sent; they are stored all the same
                batch.receipt.cancel()
            for watch in self._watches.values():
                watch.close()

    async def _read_all(self) -> ServiceError | None:
        """Read batches until the client has sent all. Return what ended the call before that."""
        try:
            async with asyncio.timeout(None) as self._reading:
                while not self._stopped:
                    data = await self._call.read()
                    if data is aio.EOF:
                        return None
                    self._append(data)
                    while self._unanswered >= _MAX_UNANSWERED or self._unanswered_bytes >= _MAX_UNANSWERED_BYTES:
                        self._answered.clear()
                        await self._answered.wait()
        except ServiceError as error:
            return error
        except TimeoutError:
            pass
        finally:
            self._reading = None
        if self._expired:
            return unauthenticated("the credential expires; send again with another one what is not acknowledged")
        return unavailable("the server is shutting down; send again what is not acknowledged")

    def _append(self, data: bytes) -> None:
        batches = parse(PublishEventsRequest, data).batches
        if len(batches) > MAX_REQUEST_BATCHES:
            raise invalid_field("batches", f"must hold at most {MAX_REQUEST_BATCHES} batches; send several requests")
        principal, size = self._call.principal, len(data)
        exact_size = size if len(batches) == 1 else None
        for batch in batches:
            producer = _Producer(RunKey(principal.tenant, batch.run_id), batch.producer_id, batch.producer_epoch)
            ends_run = bool(batch.events) and batch.events[-1].HasField("run_finished")
            first = batch.first_producer_sequence
            receipt = self._publisher.append(self._call, batch, PUBLISH, exact_size)
            self._batches.append(_Batch(producer, first, size, ends_run, receipt))
            self._unanswered += 1
            self._unanswered_bytes += size
            size = 0  # the first batch counts for all of its request
        self._changed.set()

    async def _answer_all(self) -> None:
        while True:
            response = PublishEventsResponse()
            size = self._take_answers(response)
            if self._cancel_requests:
                response.cancel_requests.extend(self._cancel_requests)
                self._cancel_requests.clear()
            if response.answers or response.cancel_requests:
                await self._writer.send(response.SerializeToString())
                self._unanswered -= len(response.answers)
                self._unanswered_bytes -= size
                self._answered.set()
            elif self._batches:
                with suppress(ServiceError):
                    await self._batches[0].receipt
            elif not self._has_read_all:
                self._changed.clear()
                await self._changed.wait()
            elif self._without_snapshot:
                await self._wait_for_snapshots()
            else:
                return

    def _take_answers(self, response: PublishEventsResponse) -> int:
        """Move outcomes that are known to a response, in the order of the batches; return the size of the batches."""
        size = 0
        while self._batches and self._batches[0].receipt.done():
            batch = self._batches.popleft()
            size += batch.size
            run, producer_id, epoch = batch.producer
            answer = response.answers.add(
                run_id=run.run_id,
                producer_id=producer_id,
                producer_epoch=epoch,
                first_producer_sequence=batch.first_producer_sequence,
            )
            try:
                receipt = batch.receipt.result()
            except ServiceError as error:
                self._note_rejection(batch.producer, error)
                answer.rejection.CopyFrom(to_status(error))
                continue
            answer.receipt.CopyFrom(receipt)
            if self._rejected and receipt.first_sequence:
                self._rejected.pop(batch.producer, None)
            if run not in self._watches and not batch.ends_run:
                self._watch_for_cancel(run)
        return size

    def _note_rejection(self, producer: _Producer, error: ServiceError) -> None:
        """Mark a gap that an earlier rejection on this call left: the client has to handle that one, not this."""
        if producer in self._rejected:
            if isinstance(error.detail, ProducerGap):
                error.detail.follows_rejection = True
            return
        if len(self._rejected) >= _MAX_REJECTED:
            del self._rejected[next(iter(self._rejected))]
        self._rejected[producer] = None

    def _watch_for_cancel(self, key: RunKey) -> None:
        """Watch a run for CancelRun; its snapshot shows a request that came before."""

        def look(notice: Notice) -> None:
            self._without_snapshot.discard(key)
            if notice.cancel_reason is not None and key not in self._cancelled:
                self._cancelled.add(key)
                self._cancel_requests.append(CancelRequest(run_id=key.run_id, reason=notice.cancel_reason))
            if notice.sealed or notice.deleted:
                self._cancelled.discard(key)
                self._watches.pop(key).close()
            self._changed.set()

        self._without_snapshot.add(key)
        self._watches[key] = self._engine.watch(key, look)

    async def _wait_for_snapshots(self) -> None:
        """Wait for the snapshots of watched runs before the call ends, as one may show a request to cancel."""
        with suppress(TimeoutError):  # a run that was deleted since has no snapshot
            async with asyncio.timeout(_SNAPSHOT_LIMIT):
                while self._without_snapshot and not self._cancel_requests:
                    self._changed.clear()
                    await self._changed.wait()
                return
        self._without_snapshot.clear()
