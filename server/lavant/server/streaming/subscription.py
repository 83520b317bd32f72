"""One reader's stream of a run, from its opening to its end."""

from dataclasses import dataclass

from lavant.server.errors import LavantError, run_not_found
from lavant.server.model import ConsumerKey, is_terminal
from lavant.server.store.failpoints import failpoint
from lavant.server.store.port import Claim, Notice
from lavant.server.streaming import frames
from lavant.server.streaming.held_stream import HeldStream, Streaming
from lavant.server.streaming.log_reader import LogReader
from lavant.server.streaming.outlet import Outlet
from lavant.server.streaming.places import Place
from lavant.server.streaming.selection import Selection
from lavant.server.streaming.tokens import Position
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_service_pb2 import DeltaMode, StreamEndReason
from lavant.v1.run_pb2 import Run

_FINAL = (StreamEndReason.STREAM_END_REASON_RUN_FINISHED, StreamEndReason.STREAM_END_REASON_HEAD_REACHED)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """What a reader asked for, checked. Times are in seconds; `deadline` is monotonic time."""

    consumer: ConsumerKey
    claim: Claim
    position: Position
    from_now: bool
    to_head: bool
    deltas: "DeltaMode.ValueType"
    heartbeat_interval: float
    idle_timeout: float
    wait_for_run: bool
    deadline: float | None


class Subscription(HeldStream):
    """Delivers a run's events to one reader, from a position to an end.

    Every event is sent once, in order, after it is durable.
    """

    __slots__ = (
        "_bookmark", "_caught_up", "_frames", "_options", "_reader", "_run", "_sent_sequence", "_stop_at", "_tail",
        "end_reason",
    )  # fmt: skip

    def __init__(
        self, shared: Streaming, options: StreamOptions, outlet: Outlet, faced: frames.Frames = frames
    ) -> None:
        super().__init__(
            shared,
            outlet,
            options.consumer,
            options.claim,
            heartbeat=options.heartbeat_interval,
            idle=options.idle_timeout,
            deadline=options.deadline,
        )
        self._frames = faced
        self._options = options
        self._caught_up = False
        self._run: Run | None = None
        self._stop_at: int | None = None
        self._sent_sequence = 0
        self.end_reason = StreamEndReason.STREAM_END_REASON_UNSPECIFIED
        self._bookmark = shared.tokens.bookmark(options.consumer.run, options.position.types, 0)

    async def deliver(self) -> None:
        """Stream until a planned end, told by a StreamEnd, or raise what ended it."""
        shared, key = self._shared, self._options.consumer.run
        with shared.measures.delivering(self), shared.calls.entered(self.wake):
            self._tail = shared.hub.join(key, self.wake)
            try:
                selection = Selection(self._options.position.types, self._options.deltas)
                self._reader = LogReader(shared.engine, key, self._tail, selection)
                await self._find_run()
                await self._hold_place()
            finally:
                shared.hub.leave(key, self._tail, self.wake)

    @property
    def run_id(self) -> str:
        """The run it reads."""
        return self._options.consumer.run.run_id

    @property
    def lag(self) -> int:
        """How many recorded events flow control has not accepted yet."""
        return self._tail.last_sequence - self._sent_sequence

    @property
    def reader_gone(self) -> bool:
        """Whether its last write failed."""
        return self._outlet.reader_gone

    async def _find_run(self, *, waited: bool = False) -> None:
        """Look up the run and settle where to begin and to stop, or wait for it if that was asked for.

        A run that was waited for has no event from before the call: all are from now on.
        """
        options, position = self._options, self._options.position
        try:
            run = await self._shared.engine.get_run(options.consumer.run)
        except LavantError as error:
            never_was = position.created_ns == 0
            if options.wait_for_run and never_was and error.reason == ErrorReason.ERROR_REASON_RUN_NOT_FOUND:
                return
            raise
        created_ns = run.create_time.ToNanoseconds()
        position.check(created_ns, run.last_sequence)
        self._run = run
        self._bookmark = self._shared.tokens.bookmark(options.consumer.run, position.types, created_ns)
        self._tail.learn(_standing(run))
        begin = run.last_sequence if options.from_now and not waited else position.sequence
        self._reader.begin(begin, created_ns)
        self._sent_sequence = begin
        self._stop_at = run.last_sequence if options.to_head else None

    async def _stream(self, place: Place) -> bytes:
        """Send all there is until an end is reached, and return the last frame."""
        opened = self._frames.opened_frame(
            self._token(), self._run, place.lease.fence, self._max_age, self._options.heartbeat_interval
        )
        await self._send(place, opened)
        self._shared.measures.opened(self)
        while True:
            self._awake = False
            self._check(place)
            if self._run is None:
                await self._find_run(waited=True)
            limit = self._tail.last_sequence if self._stop_at is None else self._stop_at
            behind = self._run is not None and self._reader.sequence < limit
            if self._run is not None and not behind and not self._caught_up:
                self._caught_up = True
                await self._send(place, self._frames.caught_up_frame(self._token(), limit))
                self._shared.measures.caught_up()
            elif (end := self._end(behind=behind)) is not None:
                return end
            elif self._times.heartbeat_due(self._shared.clock.monotonic()):
                await self._send(place, self._heartbeat())
            elif behind:
                await self._send_events(place, limit)
            else:
                await self._sleep(place)

    def _check(self, place: Place) -> None:
        if self._tail.deleted:
            raise run_not_found(self._options.consumer.run.run_id)
        super()._check(place)

    def _end(self, *, behind: bool) -> bytes | None:
        """The frame of the end that is reached by now, if one is."""
        reason = self._run_over(behind=behind) or self._reached()
        if reason is None:
            return None
        self.end_reason = reason
        delay = self._retry_delay(reason)
        return self._frames.end_frame(self._token(), reason, reconnect=reason not in _FINAL, retry_delay=delay)

    def _run_over(self, *, behind: bool) -> "StreamEndReason.ValueType | None":
        tail = self._tail
        if self._caught_up and tail.sealed and self._reader.sequence >= tail.last_sequence:
            return StreamEndReason.STREAM_END_REASON_RUN_FINISHED
        if self._caught_up and not behind and self._stop_at is not None:
            return StreamEndReason.STREAM_END_REASON_HEAD_REACHED
        return None

    async def _send_events(self, place: Place, limit: int) -> None:
        reader = self._reader
        pieces = await reader.read(limit)
        if pieces:
            await self._send(place, self._frames.events_frame(self._bookmark, reader.sequence, pieces), events=True)
            since = reader.committed_at if self._caught_up else None
            seconds = None if since is None else self._shared.clock.monotonic() - since
            self._shared.measures.delivered(reader.shown_count, seconds)
        self._sent_sequence = reader.sequence

    async def _send(self, place: Place, frame: bytes, *, events: bool = False) -> None:
        self._check(place)
        await self._outlet.send(frame)
        self._times.sent(self._shared.clock.monotonic(), events=events)
        self._shared.measures.sent(len(frame))
        failpoint("after_send")

    def _heartbeat(self) -> bytes:
        tail = self._tail
        now_ns = self._shared.clock.time_ns()
        return self._frames.heartbeat_frame(self._token(), now_ns, tail.last_sequence, tail.producer_seen_ns)

    def _token(self) -> bytes:
        return self._bookmark.at(self._reader.sequence)


def _standing(run: Run) -> Notice:
    seen_ns = run.producer_seen_time.ToNanoseconds() if run.HasField("producer_seen_time") else 0
    return Notice(last_sequence=run.last_sequence, sealed=is_terminal(run.state), producer_seen_ns=seen_ns)
