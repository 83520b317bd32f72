"""Stream of samples to one worker, from its opening to its end."""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from lavant.internal.v1.system_record_pb2 import SamplesAssigned, SystemRecord
from lavant.server.errors import rule_not_found
from lavant.server.evaluation.ledger import Ledger, Sample
from lavant.server.evaluation.log import log_of
from lavant.server.evaluation.outcomes import Subject, fail, most_attempts
from lavant.server.evaluation.rules import rule_view
from lavant.server.evaluation.sampler import Sampler, few_at_once, find_ended
from lavant.server.model import ConsumerKey, RunKey
from lavant.server.store.port import Holder
from lavant.server.store.system_logs import system_event
from lavant.server.streaming.calls import OpenCall
from lavant.server.streaming.frames import MAX_FRAME_BYTES, FrameWriter, duration, timestamp
from lavant.server.streaming.leases import HeldLease
from lavant.server.streaming.subscription import Streaming
from lavant.server.streaming.tokens import Position
from lavant.v1 import evaluation_service_pb2 as pb
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import Heartbeat, StreamEnd
from lavant.v1.run_pb2 import Error, Run

MOST_SESSIONS = 1_000  # sessions that hold samples of a rule: a ledger must fit in an event
_FETCHED_AT_ONCE = 16  # runs
_GONE = Error(type="run_deleted", message="the run was deleted before it was evaluated")
_LOST = Error(type="worker_lost", message="every worker that had the sample was lost")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """Options of a worker's stream, checked. Times are in seconds; `deadline` is monotonic time.

    `session_id` is the session's ID as the worker knows it: it is sent to the worker alone, and stored nowhere.
    """

    rule: RunKey
    worker_id: str
    session_id: str
    holder: Holder
    position: Position
    max_samples: int
    lease: float
    heartbeat_interval: float
    deadline: float | None
    peer: str = ""


class SampleStream:
    """Assigns samples to one worker, at most as many at a time as it asked for.

    A sample is sent after it is durable that the session holds it. While the stream is open, the session's hold on its
    samples is renewed; after a broken stream it expires.
    """

    __slots__ = (
        "_coordinator", "_created_ns", "_fetched", "_issuer", "_lease", "_open_call", "_options", "_owed", "_pacer",
        "_reported", "_sampler", "_sent", "_session_id", "_shared", "_writer",
    )  # fmt: skip

    def __init__(
        self,
        shared: Streaming,
        sampler: Sampler,
        options: SamplingOptions,
        write: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._shared = shared
        self._writer = FrameWriter(write, shared.stalls, self._let_go)
        self._lease: HeldLease | None = None
        self._open_call: OpenCall | None = None
        self._pacer = shared.pacer(heartbeat=options.heartbeat_interval, idle=float("inf"), deadline=options.deadline)
        self._options = options
        self._session_id = options.holder.session_id
        self._sampler = sampler
        self._coordinator = sampler.coordinator
        self._owed: deque[Sample] = deque()  # assigned, and not sent yet
        self._fetched: deque[tuple[Sample, Run]] = deque()  # the next of those, with their runs
        self._sent = options.position.sequence
        self._reported: object = None  # the state of the last frame that nothing is left; None: something was since

    async def deliver(self) -> None:
        """Stream until a planned end, which a StreamEnd reports, or raise what ended the stream."""
        shared, options, coordinator = self._shared, self._options, self._coordinator
        with shared.calls.entered(self.wake, options.peer) as self._open_call:
            await coordinator.read()
            self._created_ns = coordinator.record.created_ns
            options.position.check(self._created_ns, coordinator.ledger.assigned)
            log = log_of(options.rule)
            self._issuer = shared.tokens.issuer(log, 0, self._created_ns)
            with self._sampler.serving(self):
                await coordinator.read()
                worker = ConsumerKey(log, options.worker_id)
                lease = await shared.leases.acquire(worker, options.holder, self._is_interrupted)
                async with lease as self._lease:
                    end = await self._stream(lease)
                await self._writer.send(end)
                shared.metrics.sent(len(end))

    def _is_interrupted(self) -> bool:
        """Return whether the end of the lease interrupts the stream. A write continues, and holds nothing meanwhile."""
        if self._writer.is_writing:
            self._let_go()
            return False
        return True

    def _let_go(self) -> None:
        """Let the worker's next stream in while this one's reader does not read."""
        if self._open_call is not None:
            self._open_call.stall()
        if self._lease is not None:
            self._shared.leases.start_release(self._lease)

    def wake(self) -> None:
        """Continue: there may be something to send."""
        self._pacer.wake()

    def wants_samples(self) -> bool:
        """Return whether more samples can be assigned to the session."""
        ledger, session_id = self._coordinator.ledger, self._session_id
        may_hold = session_id in ledger.holding or len(ledger.holding) < MOST_SESSIONS
        is_over = session_id in ledger.over
        return may_hold and not is_over and ledger.holding[session_id] < self._options.max_samples

    async def _stream(self, lease: HeldLease) -> bytes:
        options = self._options
        if self._coordinator.ledger.holding[self._session_id]:
            await self._renew()
        held = self._coordinator.ledger.held_by(self._session_id)
        self._owed.extend(sample for sample in held if sample.number > self._sent)
        opened = pb.SamplesOpened(
            rule=rule_view(self._coordinator),
            fence=lease.lease.fence,
            max_age=duration(self._pacer.max_age),
            heartbeat_interval=duration(options.heartbeat_interval),
            lease=duration(options.lease),
            session_id=options.session_id,
        )
        await self._send(lease, pb.SampleRunsResponse(opened=opened))
        while True:
            self._check(lease)
            if (reason := self._shared.planned_end(self._pacer)) is not None:
                retry_delay = duration(self._shared.retry_delay(reason, self._pacer))
                end = StreamEnd(reason=reason, reconnect=True, retry_delay=retry_delay)
                return self._encoded(pb.SampleRunsResponse(end=end))
            if not await self._advance(lease):
                await self._pacer.sleep(min(lease.usable_until, self._next_due()))

    async def _advance(self, lease: HeldLease) -> bool:
        """Do the next step; return whether there was one."""
        now_ns, ledger = self._shared.clock.time_ns(), self._coordinator.ledger
        if self._renewal_ns() <= now_ns:
            await self._renew()
        elif self._owed or self._fetched:
            await self._send_samples(lease)
        elif self._pacer.heartbeat_due():
            await self._send(lease, pb.SampleRunsResponse(heartbeat=Heartbeat(server_time=timestamp(now_ns))))
        elif self.wants_samples() and ledger.has_free(now_ns):
            return await self._assign()
        elif self._sampler.caught_up and ledger.waiting == len(ledger.retries):
            # Also after the last sample failed, or a backfill found nothing: who waits for the frame needs another one.
            state = (ledger.failed, frozenset(ledger.retries.items()), ledger.backfill)
            if self._reported == state:
                return False
            self._reported = state
            delay_ns = ledger.delay_ns(now_ns)
            next_retry_delay = None if delay_ns is None else duration(delay_ns / 1e9)
            caught_up = pb.SamplesCaughtUp(progress=ledger.progress(), next_retry_delay=next_retry_delay)
            await self._send(lease, pb.SampleRunsResponse(caught_up=caught_up))
        else:
            self._reported = None
            return False
        return True

    def _check(self, lease: HeldLease) -> None:
        if self._coordinator.gone is not None:
            raise self._coordinator.gone
        if self._coordinator.record.created_ns != self._created_ns:
            raise rule_not_found(self._options.rule.run_id)
        lease.check()

    async def _assign(self) -> bool:
        """Assign free samples to the session; return whether there were any."""
        now_ns, most = self._shared.clock.time_ns(), most_attempts(self._coordinator.record.rule)
        await self._fail([one for one in self._coordinator.ledger.free(now_ns) if one.attempts >= most], _LOST)

        def assign(ledger: Ledger) -> list[Event]:
            if self._session_id in ledger.over:
                return []
            free = (sample for sample in ledger.free(now_ns) if sample.session_id != self._session_id)
            count = self._options.max_samples - ledger.holding[self._session_id]
            run_ids = [sample.run_id for sample in islice(free, max(0, count))]
            return [self._assigned(run_ids)] if run_ids else []

        before = self._coordinator.ledger.assigned
        events = await self._coordinator.decide(assign)
        self._reported = None
        held = self._coordinator.ledger.held_by(self._session_id) if events else ()
        self._owed.extend(sample for sample in held if sample.number > before)
        return bool(events)

    async def _renew(self) -> None:
        """Renew the session's hold on its samples."""
        await self._coordinator.decide(lambda ledger: [self._assigned(())] if ledger.holding[self._session_id] else [])

    def _assigned(self, run_ids: Sequence[str]) -> Event:
        expire_ns = self._shared.clock.time_ns() + round(self._options.lease * 1e9)
        assigned = SamplesAssigned(
            worker_id=self._options.worker_id,
            session_id=self._session_id,
            run_ids=run_ids,
            expire_time=timestamp(expire_ns),
        )
        return system_event(SystemRecord(samples_assigned=assigned))

    async def _fail(self, samples: Sequence[Sample], error: Error) -> None:
        """Record samples as failed, as many in a batch as fit, unless they have changed since."""
        rule, now_ns = self._coordinator.record.rule, self._shared.clock.time_ns()

        async def fail_one(sample: Sample) -> None:
            subject = Subject.of(sample.run_id, await self._find_run(sample.run_id), now_ns)
            await self._coordinator.decide(
                lambda ledger: [fail(rule, subject, error)] if ledger.samples.get(sample.run_id) == sample else []
            )

        await few_at_once(fail_one, samples)

    async def _send_samples(self, lease: HeldLease) -> None:
        samples: list[pb.Sample] = []
        size = 0
        while size < MAX_FRAME_BYTES and (self._fetched or self._owed):
            if not self._fetched:
                await self._fetch()
                continue
            sample, run = self._fetched.popleft()
            held = self._coordinator.ledger.samples.get(sample.run_id)
            if held is not None and (held.session_id, held.number) == (sample.session_id, sample.number):
                samples.append(pb.Sample(run=run, attempt=sample.attempts, rule_revision=sample.revision))
                size += run.ByteSize()
            self._sent = sample.number
        if samples:
            self._reported = None
            frame = pb.SampleRunsResponse(samples=pb.SampleBatch(samples=samples))
            del samples, run, sample  # while the worker takes its time, the frame is all that is kept
            await self._send(lease, frame)

    async def _fetch(self) -> None:
        """Read the next runs; samples whose runs were deleted fail."""
        some = [self._owed.popleft() for _ in range(min(_FETCHED_AT_ONCE, len(self._owed)))]
        kept = {sample.run_id: self._sampler.take_run(sample.run_id) for sample in some}
        read = iter(await few_at_once(self._find_run, [run_id for run_id, run in kept.items() if run is None]))
        found = [(sample, kept[sample.run_id] or next(read)) for sample in some]
        self._fetched.extend((sample, run) for sample, run in found if run is not None)
        await self._fail([sample for sample, run in found if run is None], _GONE)

    async def _find_run(self, run_id: str) -> Run | None:
        return await find_ended(self._shared.engine, RunKey(self._options.rule.tenant, run_id))

    async def _send(self, lease: HeldLease, frame: pb.SampleRunsResponse) -> None:
        self._check(lease)
        data = self._encoded(frame)
        frame.Clear()
        await self._writer.send(data)
        self._pacer.sent(events=False)
        self._shared.metrics.sent(len(data))

    def _encoded(self, frame: pb.SampleRunsResponse) -> bytes:
        frame.resume_token = self._issuer.at(self._sent).decode()
        return frame.SerializeToString()

    def _renewal_ns(self) -> float:
        """Return when to renew the session's hold, in wall time: after a third of it.

        That is at once if the hold is longer than possible: the clock was set back.
        """
        expire_ns = self._coordinator.ledger.sessions.get(self._session_id)
        if expire_ns is None:
            return float("inf")
        lease_ns = round(self._options.lease * 1e9)
        now_ns = self._shared.clock.time_ns()
        return now_ns if expire_ns > now_ns + lease_ns else expire_ns - 2 * lease_ns // 3

    def _next_due(self) -> float:
        """Return when there may be a next step, in monotonic time, if nothing else happens."""
        clock = self._shared.clock
        now_ns = clock.time_ns()
        due_ns = self._renewal_ns()
        if self.wants_samples() and (free_ns := self._coordinator.ledger.next_due_ns(now_ns)) is not None:
            due_ns = min(due_ns, free_ns)
        return clock.monotonic() + (due_ns - now_ns) / 1e9
