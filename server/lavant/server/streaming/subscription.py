"""One reader's stream of a run, from its opening to its end."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

from lavant.server.auth.principal import ANONYMOUS, CALLER
from lavant.server.clock import Clock
from lavant.server.errors import ServiceError, run_not_found
from lavant.server.metrics import StreamMetrics
from lavant.server.model import ConsumerKey, RunKey, beside, is_terminal
from lavant.server.store.failpoints import failpoint
from lavant.server.store.port import Engine, Holder, Notice
from lavant.server.store.restrictions import Restriction, check_within
from lavant.server.streaming import frames
from lavant.server.streaming.calls import Calls, OpenCall
from lavant.server.streaming.frames import FrameWriter, Pieces, StallWatch
from lavant.server.streaming.hub import Hub, SharedFrame, Tail
from lavant.server.streaming.leases import ConsumerLeases, HeldLease
from lavant.server.streaming.pacing import Pacer
from lavant.server.streaming.reader import Batch, LogReader, Selection
from lavant.server.streaming.timers import CoarseTimers
from lavant.server.streaming.tokens import Position, ResumeTokens
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_service_pb2 import (
    STREAM_END_REASON_CREDENTIAL_EXPIRED,
    STREAM_END_REASON_DRAINING,
    STREAM_END_REASON_HEAD_REACHED,
    STREAM_END_REASON_IDLE,
    STREAM_END_REASON_MAX_AGE,
    STREAM_END_REASON_RUN_FINISHED,
    STREAM_END_REASON_UNSPECIFIED,
    DeltaMode,
    StreamEndReason,
)
from lavant.v1.run_pb2 import Run

_DRAIN_SPREAD = 2.0  # seconds over which the readers of a draining server reconnect
_MAX_AGE_JITTER = 0.1
_WAITING = "waiting"  # suffix of the tenant of leases that are held apart
_FINAL = (STREAM_END_REASON_RUN_FINISHED, STREAM_END_REASON_HEAD_REACHED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Streaming:
    """The parts that all streams of a server share. Times are in seconds."""

    engine: Engine
    hub: Hub
    leases: ConsumerLeases
    tokens: ResumeTokens
    calls: Calls
    clock: Clock
    random: Random
    max_age: float
    stalls: StallWatch
    timers: CoarseTimers
    metrics: StreamMetrics = field(default_factory=StreamMetrics)

    def pacer(self, *, heartbeat: float, idle: float, deadline: float | None) -> Pacer:
        """Make the pacer of a new stream of the caller's, which ends before the credential of the call expires.

        Ages vary, so that streams opened together do not end together.
        """
        max_age = self.max_age * self.random.uniform(1 - _MAX_AGE_JITTER, 1 + _MAX_AGE_JITTER)
        expires_ns = CALLER.get(ANONYMOUS).expires_ns
        return Pacer(
            self.timers, heartbeat=heartbeat, idle=idle, max_age=max_age, deadline=deadline, expires_ns=expires_ns
        )

    def planned_end(self, pacer: Pacer) -> "StreamEndReason.ValueType | None":
        """Return why a stream has to end by now, or None."""
        if self.calls.draining:
            return STREAM_END_REASON_DRAINING
        return pacer.planned_end()

    def retry_delay(self, reason: "StreamEndReason.ValueType", pacer: Pacer) -> float:
        """Return after how many seconds a reader reconnects.

        Those of a draining server do it one after the other. One whose credential is about to expire would be ended at
        once again before it has.
        """
        if reason == STREAM_END_REASON_DRAINING:
            return self.random.uniform(0, _DRAIN_SPREAD)
        return pacer.time_until_expired() if reason == STREAM_END_REASON_CREDENTIAL_EXPIRED else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """A reader's request, checked. Times are in seconds; `deadline` is monotonic time.

    A run that `within` does not allow is none, also to a reader that waits for it.
    """

    consumer: ConsumerKey
    holder: Holder
    position: Position
    from_now: bool
    to_head: bool
    deltas: "DeltaMode.ValueType"
    heartbeat_interval: float
    idle_timeout: float
    ends_when_idle: bool
    wait_for_run: bool
    within: Restriction | None = None
    deadline: float | None
    peer: str = ""


class Subscription:
    """Delivers a run's events to one reader, from a position to an end.

    Every event is sent once, in order, after it is durable. The consumer's lease is released before the last frame or
    the error is sent. Memory: one frame, whatever the reader does.
    """

    __slots__ = (
        "_caught_up", "_encoder", "_first", "_is_found", "_issuer", "_last_sequence", "_lease", "_open_call",
        "_options", "_pacer", "_reader", "_run", "_sent_sequence", "_shared", "_tail", "_writer", "end_reason",
    )  # fmt: skip

    def __init__(
        self,
        shared: Streaming,
        options: StreamOptions,
        write: Callable[[bytes], Awaitable[None]],
        encoder: frames.Encoder = frames,
    ) -> None:
        self._shared = shared
        self._options = options
        self._writer = FrameWriter(write, shared.stalls, self._stall)
        self._encoder = encoder
        self._pacer = shared.pacer(
            heartbeat=options.heartbeat_interval, idle=options.idle_timeout, deadline=options.deadline
        )
        selection = Selection(options.position.types, options.deltas)
        self._reader = LogReader(shared.engine, options.consumer.run, selection)
        self._tail: Tail | None = None
        self._lease: HeldLease | None = None
        self._open_call: OpenCall | None = None
        self._caught_up = self._is_found = False
        self._run: Run | None = None
        self._last_sequence: int | None = None
        self._first = Batch()
        self._sent_sequence = 0
        self.end_reason = STREAM_END_REASON_UNSPECIFIED

    async def deliver(self) -> None:
        """Stream until a planned end, which the last frame has, or raise what ended the stream."""
        shared = self._shared
        with (
            shared.metrics.delivering(self),
            shared.calls.entered(self._pacer.wake, self._options.peer) as self._open_call,
        ):
            await self._find_run()
            begin = self._reader.sequence
            if await self._read_whole():
                await self._send_whole(begin)
            else:
                await self._follow(begin)

    @property
    def tenant(self) -> str:
        """Tenant of the run."""
        return self._options.consumer.run.tenant

    @property
    def run_id(self) -> str:
        """ID of the run."""
        return self._options.consumer.run.run_id

    @property
    def lag(self) -> int:
        """Number of recorded events that flow control has not accepted yet."""
        tail = self._visible_tail
        return 0 if tail is None else tail.last_sequence - self._sent_sequence

    @property
    def reader_gone(self) -> bool:
        """Whether the last write failed."""
        return self._writer.reader_gone

    async def _find_run(self, *, waited: bool = False) -> None:
        """Find the run and settle where to start and to stop, or wait for it if the request says so.

        A run that was waited for has no event from before the call: all are from now on.
        """
        options, position, was_hidden = self._options, self._options.position, waited and self._may_be_of_others
        try:
            run = check_within(options.within, await self._shared.engine.get_run(options.consumer.run))
        except ServiceError as error:
            never_was = position.created_ns == 0
            if options.wait_for_run and never_was and error.reason == ErrorReason.ERROR_REASON_RUN_NOT_FOUND:
                self._issuer = self._shared.tokens.issuer(options.consumer.run, position.types, 0)
                return
            raise
        created_ns = run.create_time.ToNanoseconds()
        position.check(created_ns, run.last_sequence)
        self._run, self._is_found = run, True
        self._issuer = self._shared.tokens.issuer(options.consumer.run, position.types, created_ns)
        if not was_hidden:
            self._learn(run)
        begin = run.last_sequence if options.from_now and not waited else position.sequence
        self._reader.begin(begin, created_ns)
        self._sent_sequence = begin
        if options.to_head or is_terminal(run.state):
            self._last_sequence = run.last_sequence

    async def _read_whole(self) -> bool:
        """Read the first events of a run with a known end; return whether there are no more."""
        reader, last_sequence = self._reader, self._last_sequence
        if last_sequence is None:
            return False
        if reader.sequence < last_sequence:
            self._first = await reader.read(last_sequence)
        return reader.sequence == last_sequence

    async def _send_whole(self, begin: int) -> None:
        """Send all that there is in one frame, the first and the last.

        The lease is released before a last frame is sent, and nothing is sent before this one: it need not be held.
        """
        shared, options = self._shared, self._options
        fence = await shared.leases.acquire_and_release(options.consumer, options.holder)
        shared.metrics.opened(self)
        await self._send_next(None, self._opened(begin, fence))

    async def _follow(self, begin: int) -> None:
        """Send frames until an end is reached, with the lease held."""
        shared, options, wake = self._shared, self._options, self._pacer.wake
        key = options.consumer.run
        self._tail = self._reader.tail = shared.hub.join(key, wake)
        try:
            if self._run is not None:
                self._learn(self._run)
            lease = await shared.leases.acquire(self._place(), options.holder, self._is_interrupted)
            async with lease as self._lease:
                end = await self._stream(lease, begin)
            await self._send(end)
        finally:
            if self._tail is not None:  # else it was left when the reader stalled
                shared.hub.leave(key, self._tail, wake)

    def _is_interrupted(self) -> bool:
        """Return whether the end of the lease interrupts the stream. A write continues, and holds nothing meanwhile."""
        if self._writer.is_writing:
            self._let_go()
            return False
        return True

    def _stall(self) -> None:
        """End the stream as far as that is possible while its reader does not read."""
        self._shared.metrics.stalled(self)
        self._let_go()

    def _let_go(self) -> None:
        """Free what others wait for, or what takes memory, while the reader does not read."""
        shared, tail = self._shared, self._tail
        if self._open_call is not None:
            self._open_call.stall()
        if self._lease is not None:
            shared.leases.start_release(self._lease)
        if tail is not None:
            shared.hub.leave(self._options.consumer.run, tail, self._pacer.wake)
        self._tail = self._reader.tail = None

    @property
    def _may_be_of_others(self) -> bool:
        """Whether the tail may be of a run that the reader may not know of."""
        return self._options.within is not None and not self._is_found

    def _place(self) -> ConsumerKey:
        """Return the consumer whose lease the stream holds.

        A reader that waits for a run which may be one of others holds a lease apart: the consumer's own would show
        whether somebody reads that run, and keep others from it.
        """
        consumer = self._options.consumer
        if not self._may_be_of_others:
            return consumer
        run = RunKey(beside(consumer.run.tenant, _WAITING), consumer.run.run_id)
        return ConsumerKey(run, f"{self._options.holder.owner.id}/{consumer.consumer_id}")

    @property
    def _visible_tail(self) -> Tail | None:
        return None if self._may_be_of_others else self._tail

    def _leave_deleted(self) -> None:
        """Follow the next run of this ID after one that the reader may not know of was deleted."""
        if self._tail is not None and self._tail.deleted:
            key, wake = self._options.consumer.run, self._pacer.wake
            self._shared.hub.leave(key, self._tail, wake)
            self._tail = self._reader.tail = self._shared.hub.join(key, wake)

    def _learn(self, run: Run) -> None:
        if self._tail is not None and not self._tail.learn(_snapshot(run)):
            raise run_not_found(self.run_id)

    async def _stream(self, lease: HeldLease, begin: int) -> Pieces:
        """Send frames until an end is reached, and return the last one's parts."""
        await self._send_next(lease, self._opened(begin, lease.lease.fence))  # no name, which would keep it in memory
        self._shared.metrics.opened(self)
        pacer = self._pacer
        while True:
            self._check(lease)
            if was_hidden := self._may_be_of_others:
                self._leave_deleted()
            if not self._is_found:
                await self._find_run(waited=True)
            if was_hidden and self._is_found:
                return self._end(STREAM_END_REASON_MAX_AGE)  # the next call acquires the consumer's own lease
            self._run = None  # only the opening needs it
            has_more = self._is_found and not (self._caught_up and self._reader.sequence >= self._limit)
            if (reason := self._end_of_log() or self._shared.planned_end(pacer)) is not None:
                return self._end(reason)
            if pacer.heartbeat_due():
                self._check(lease)
                await self._send(self._heartbeat())
            elif has_more and self._caught_up and self._tail is not None:
                await self._send_live(lease, self._tail)
            elif has_more:
                await self._send_next(lease)
            else:
                await pacer.sleep(lease.usable_until)

    def _check(self, lease: HeldLease) -> None:
        """Raise what ends a stream that may send no more."""
        if self._tail is not None and self._tail.deleted and not self._may_be_of_others:
            raise run_not_found(self.run_id)
        lease.check()

    @property
    def _limit(self) -> int:
        """Sequence up to which there are events to send."""
        if self._last_sequence is not None or self._tail is None:
            return self._last_sequence or 0
        return self._tail.last_sequence

    def _end_of_log(self) -> "StreamEndReason.ValueType | None":
        if not self._caught_up:
            return None
        tail, run, sequence = self._tail, self._run, self._reader.sequence
        is_sealed = run is not None and is_terminal(run.state) if tail is None else tail.sealed
        if is_sealed and (tail is None or sequence >= tail.last_sequence):
            return STREAM_END_REASON_RUN_FINISHED
        if self._last_sequence is not None and sequence >= self._last_sequence:
            return STREAM_END_REASON_HEAD_REACHED
        return None

    async def _send_next(self, lease: HeldLease | None, opened: Pieces = ()) -> None:
        """Send the next events, and that the head is reached, in one frame with `opened`.

        Without a lease, also the end.
        """
        was_caught_up = self._caught_up
        frame, shown_count, has_events = await self._encode_next(lease, opened)
        del opened  # while the reader takes its time, the frame is all that is kept
        if frame:
            await self._send_frame(frame, events=has_events)
        self._sent(shown_count, None)
        if self._caught_up and not was_caught_up:
            self._shared.metrics.caught_up()

    async def _encode_next(self, lease: HeldLease | None, opened: Pieces) -> tuple[bytes, int, bool]:
        """Return the next frame, the number of its events, and whether it has any."""
        batch, self._first = self._first, Batch()
        parts, reader, was_caught_up = [*opened], self._reader, self._caught_up
        if self._is_found:
            limit = self._limit
            if not batch.events and reader.sequence < limit:
                batch = await reader.read(limit)
            if batch.events:
                parts += await self._encoder.events(self._issuer, reader.sequence, batch.events)
            if not was_caught_up and reader.sequence >= limit:
                self._caught_up = True
                parts += self._encoder.caught_up(self._issuer, reader.sequence, limit)
        if lease is not None:
            self._check(lease)
        elif (reason := self._end_of_log()) is not None:
            parts += self._end(reason)
        frame = self._encoder.frame(self._issuer, reader.sequence, parts) if parts else b""
        return frame, batch.shown_count, bool(batch.events)

    async def _send_live(self, lease: HeldLease, tail: Tail) -> None:
        """Send the next events to a reader that has caught up: the same bytes to all at the same position."""
        reader, position, limit = self._reader, self._options.position, self._limit
        key = (self._encoder.key, position.types, self._options.deltas, reader.sequence, limit)
        frame = None if self._encoder.key is None else tail.shared_frame(key)
        if frame is None:
            batch = await reader.read(limit)
            parts = await self._encoder.events(self._issuer, reader.sequence, batch.events)
            data = self._encoder.frame(self._issuer, reader.sequence, parts) if batch.events else b""
            frame = SharedFrame(data, reader.sequence, batch.shown_count, batch.committed_at)
            if self._encoder.key is not None:
                tail.keep(key, frame)
        reader.sequence = frame.sequence
        if frame.data:
            self._check(lease)
            await self._send_frame(frame.data, events=True)
        self._sent(frame.shown_count, frame.committed_at)

    def _sent(self, shown_count: int, committed_at: float | None) -> None:
        self._sent_sequence = self._reader.sequence
        if shown_count:
            seconds = None if committed_at is None else self._shared.clock.monotonic() - committed_at
            self._shared.metrics.delivered(shown_count, seconds)

    async def _send(self, parts: Pieces, *, events: bool = False) -> None:
        await self._send_frame(self._encoder.frame(self._issuer, self._reader.sequence, parts), events=events)

    async def _send_frame(self, frame: bytes, *, events: bool) -> None:
        await self._writer.send(frame)
        self._pacer.sent(events=events)
        self._shared.metrics.sent(len(frame))
        failpoint("after_send")

    def _opened(self, begin: int, fence: int) -> Pieces:
        return self._encoder.opened(
            self._issuer,
            begin,
            self._run,
            fence=fence,
            max_age=self._pacer.max_age,
            heartbeat_interval=self._options.heartbeat_interval,
        )

    def _heartbeat(self) -> Pieces:
        tail, now_ns = self._visible_tail, self._shared.clock.time_ns()
        return self._encoder.heartbeat(
            self._issuer,
            self._reader.sequence,
            server_ns=now_ns,
            last_sequence=0 if tail is None else tail.last_sequence,
            producer_seen_ns=0 if tail is None else tail.producer_seen_ns,
        )

    def _end(self, reason: "StreamEndReason.ValueType") -> Pieces:
        self.end_reason = reason
        delay = self._shared.retry_delay(reason, self._pacer)
        ends_for_good = reason in _FINAL or (reason == STREAM_END_REASON_IDLE and self._options.ends_when_idle)
        return self._encoder.end(
            self._issuer, self._reader.sequence, reason, reconnect=not ends_for_good, retry_delay=delay
        )


def _snapshot(run: Run) -> Notice:
    seen_ns = run.producer_seen_time.ToNanoseconds() if run.HasField("producer_seen_time") else 0
    return Notice(
        last_sequence=run.last_sequence,
        sealed=is_terminal(run.state),
        producer_seen_ns=seen_ns,
        created_ns=run.create_time.ToNanoseconds(),
    )
