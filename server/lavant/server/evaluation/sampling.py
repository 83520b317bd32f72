"""One worker's stream of samples, from its opening to its end."""

import asyncio
from collections import deque
from dataclasses import dataclass
from itertools import islice

from lavant.server.errors import rule_not_found
from lavant.server.evaluation import sample_frames
from lavant.server.evaluation.counter import Counter
from lavant.server.evaluation.ledger import Ledger, Sample
from lavant.server.evaluation.outcomes import Subject, fail, find_ended, most_attempts
from lavant.server.evaluation.record import log_of
from lavant.server.evaluation.views import rule_view
from lavant.server.model import ConsumerKey, RunKey
from lavant.server.store.port import Claim
from lavant.server.streaming.frames import MAX_FRAME_BYTES, timestamp
from lavant.server.streaming.held_stream import HeldStream, Streaming
from lavant.server.streaming.outlet import Outlet
from lavant.server.streaming.places import Place
from lavant.server.streaming.tokens import Position
from lavant.v1.event_pb2 import Event, SamplesLeased
from lavant.v1.run_pb2 import Error, Run

MOST_SESSIONS = 1_000  # that hold samples of a rule: a ledger must fit in an event
_LOOKED_UP_AT_ONCE = 16  # runs
_GONE = Error(type="run_deleted", message="the run was deleted before it was judged")
_LOST = Error(type="worker_lost", message="every worker that had the sample was lost")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """What a worker asked for, checked. Times are in seconds; `deadline` is monotonic time."""

    rule: RunKey
    worker_id: str
    claim: Claim
    position: Position
    max_samples: int
    lease: float
    heartbeat_interval: float
    deadline: float | None


class SampleStream(HeldStream):
    """Hands samples to one worker, as many at a time as it asked for.

    A sample is sent after it is durable that the session holds it. While the stream lives, the session's
    hold on what it has is renewed; a stream that is cut leaves it to expire.
    """

    __slots__ = ("_bookmark", "_counter", "_created_ns", "_desk", "_fetched", "_options", "_owed", "_sent", "_told")

    def __init__(self, shared: Streaming, counter: Counter, options: SamplingOptions, outlet: Outlet) -> None:
        consumer = ConsumerKey(log_of(options.rule), options.worker_id)
        super().__init__(
            shared,
            outlet,
            consumer,
            options.claim,
            heartbeat=options.heartbeat_interval,
            idle=float("inf"),
            deadline=options.deadline,
        )
        self._options = options
        self._counter = counter
        self._desk = counter.desk
        self._owed: deque[Sample] = deque()
        self._fetched: deque[tuple[Sample, Run]] = deque()
        self._sent = options.position.sequence
        self._told: tuple[int, frozenset[tuple[str, int]]] | None = None  # failures and delayed samples, caught up

    async def deliver(self) -> None:
        """Stream until a planned end, told by a StreamEnd, or raise what ended it."""
        with self._shared.calls.entered(self.wake):
            await self._desk.refresh()
            self._created_ns = self._desk.entry.created_ns
            self._options.position.check(self._created_ns, self._desk.ledger.handed)
            self._bookmark = self._shared.tokens.bookmark(log_of(self._options.rule), 0, self._created_ns)
            self._counter.enter(self)
            try:
                await self._desk.refresh()
                await self._hold_place()
            finally:
                self._counter.leave(self)

    def has_room(self) -> bool:
        """Whether the session may be handed more."""
        holding = self._desk.ledger.holding
        session_id = self._options.claim.session_id
        may_hold = session_id in holding or len(holding) < MOST_SESSIONS
        if session_id in self._desk.ledger.over:
            return False
        return may_hold and holding[session_id] < self._options.max_samples

    async def _stream(self, place: Place) -> bytes:
        options = self._options
        if self._desk.ledger.holding[options.claim.session_id]:
            await self._hold()
        self._owed.extend(
            sample for sample in self._desk.ledger.held_by(options.claim.session_id) if sample.handed > self._sent
        )
        opened = sample_frames.opened(
            rule_view(self._desk),
            fence=place.lease.fence,
            max_age=self._max_age,
            heartbeat_interval=options.heartbeat_interval,
            lease=options.lease,
            session_id=options.claim.session_id,
        )
        await self._send(place, opened)
        while True:
            self._awake = False
            self._check(place)
            if (reason := self._reached()) is not None:
                return sample_frames.end(self._token(), reason, self._retry_delay(reason))
            if not await self._advance(place):
                await self._sleep(place, self._next_due())

    async def _advance(self, place: Place) -> bool:
        """Do the next that there is to do; tells whether there was anything."""
        now_ns = self._shared.clock.time_ns()
        ledger = self._desk.ledger
        if self._renewal_ns() <= self._shared.clock.time_ns():
            await self._hold()
        elif self._owed or self._fetched:
            await self._send_samples(place)
        elif self._times.heartbeat_due(self._shared.clock.monotonic()):
            await self._send(place, sample_frames.heartbeat(now_ns))
        elif self.has_room() and ledger.has_free(now_ns):
            return await self._take()
        elif self._counter.drawer.caught_up and ledger.waiting == len(ledger.retries):
            # Also after a failure that was the last: its worker waits to hear that nothing is left.
            told = (ledger.failed, frozenset(ledger.retries.items()))
            if self._told == told:
                return False
            self._told = told
            await self._send(place, sample_frames.caught_up(ledger.progress(), ledger.delay_ns(now_ns)))
        else:
            self._told = None
            return False
        return True

    def _check(self, place: Place) -> None:
        if self._desk.gone is not None:
            raise self._desk.gone
        if self._desk.entry.created_ns != self._created_ns:
            raise rule_not_found(self._options.rule.run_id)
        super()._check(place)

    async def _take(self) -> bool:
        """Have the session hold what can be handed out; tells whether anything was."""
        options, rule = self._options, self._desk.entry.record.rule
        session_id = options.claim.session_id
        now_ns = self._shared.clock.time_ns()
        for sample in [*self._desk.ledger.free(now_ns)]:
            if sample.attempts >= most_attempts(rule):
                await self._give_up(sample, _LOST)

        def take(ledger: Ledger) -> list[Event]:
            if session_id in ledger.over:
                return []
            free = (sample for sample in ledger.free(now_ns) if sample.session_id != session_id)
            room = options.max_samples - ledger.holding[session_id]
            run_ids = [sample.run_id for sample in islice(free, max(0, room))]
            return [self._leased(run_ids)] if run_ids else []

        events = await self._desk.decide(take)
        self._told = None
        for run_id in events[0].samples_leased.run_ids if events else ():
            taken = self._desk.ledger.samples.get(run_id)
            if taken is not None and taken.session_id == session_id:
                self._owed.append(taken)
        return bool(events)

    async def _hold(self) -> None:
        """Have the session hold for longer what it holds."""
        session_id = self._options.claim.session_id
        await self._desk.decide(lambda ledger: [self._leased(())] if ledger.holding[session_id] else [])

    def _leased(self, run_ids: "list[str] | tuple[()]") -> Event:
        expire_ns = self._shared.clock.time_ns() + round(self._options.lease * 1e9)
        leased = SamplesLeased(
            worker_id=self._options.worker_id,
            session_id=self._options.claim.session_id,
            run_ids=run_ids,
            expire_time=timestamp(expire_ns),
        )
        return Event(samples_leased=leased)

    async def _give_up(self, sample: Sample, error: Error) -> None:
        """Record a sample as failed, if it is as it was."""
        run = await self._find_run(sample.run_id)
        subject = Subject.of(sample.run_id, run, self._shared.clock.time_ns())
        rule = self._desk.entry.record.rule
        await self._desk.decide(
            lambda ledger: fail(rule, subject, error) if ledger.samples.get(sample.run_id) == sample else []
        )

    async def _send_samples(self, place: Place) -> None:
        samples: list[tuple[Sample, Run]] = []
        size = 0
        while size < MAX_FRAME_BYTES and (self._fetched or self._owed):
            if not self._fetched:
                await self._fetch()
                continue
            sample, run = self._fetched.popleft()
            if self._is_held(sample):
                samples.append((sample, run))
                size += run.ByteSize()
            self._sent = sample.handed
        if samples:
            self._told = None
            await self._send(place, sample_frames.samples(samples))

    async def _fetch(self) -> None:
        """Look up the next runs; one that was deleted cannot be judged."""
        some = [self._owed.popleft() for _ in range(min(_LOOKED_UP_AT_ONCE, len(self._owed)))]
        runs = [self._counter.drawer.take_run(sample.run_id) for sample in some]
        missing = [sample for sample, run in zip(some, runs, strict=True) if run is None]
        found = iter(await asyncio.gather(*(self._find_run(sample.run_id) for sample in missing)))
        for sample, kept in zip(some, runs, strict=True):
            if (run := kept or next(found)) is not None:
                self._fetched.append((sample, run))
            else:
                await self._give_up(sample, _GONE)

    async def _find_run(self, run_id: str) -> Run | None:
        return await find_ended(self._shared.engine, RunKey(self._options.rule.tenant, run_id))

    def _is_held(self, sample: Sample) -> bool:
        held = self._desk.ledger.samples.get(sample.run_id)
        return held is not None and (held.session_id, held.handed) == (sample.session_id, sample.handed)

    async def _send(self, place: Place, frame: "sample_frames.Frame") -> None:
        self._check(place)
        data = sample_frames.framed(self._token(), frame)
        await self._outlet.send(data)
        self._times.sent(self._shared.clock.monotonic(), events=False)
        self._shared.measures.sent(len(data))

    def _token(self) -> bytes:
        return self._bookmark.at(self._sent)

    def _renewal_ns(self) -> float:
        """When the session's hold is to be renewed, in wall time: when a third of it is over.

        At once if it is longer than can be: the clock was set back.
        """
        expire_ns = self._desk.ledger.sessions.get(self._options.claim.session_id)
        if expire_ns is None:
            return float("inf")
        lease_ns = round(self._options.lease * 1e9)
        now_ns = self._shared.clock.time_ns()
        return now_ns if expire_ns > now_ns + lease_ns else expire_ns - 2 * lease_ns // 3

    def _next_due(self) -> float:
        """When there may be something to do, in monotonic time, if nothing else happens."""
        clock = self._shared.clock
        now_ns = clock.time_ns()
        due_ns = self._renewal_ns()
        if self.has_room() and (free_ns := self._desk.ledger.next_due_ns(now_ns)) is not None:
            due_ns = min(due_ns, free_ns)
        return clock.monotonic() + (due_ns - now_ns) / 1e9
