"""Coordinator of one rule in this process: it makes all decisions about the rule's samples, one after the other."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import structlog

from lavant.contract.limits import MAX_BATCH_BYTES, MAX_BATCH_EVENTS
from lavant.server.clock import Clock
from lavant.server.errors import ServiceError, rule_not_found
from lavant.server.evaluation.ledger import Ledger
from lavant.server.evaluation.log import OVER, Record, RuleLog, segment_of
from lavant.server.metrics import ScoreMetrics
from lavant.server.model import RESULTS_OF_RULES, RunKey
from lavant.server.store.port import Engine, Notice, Watch
from lavant.server.store.system_logs import OverwrittenError, SystemLogs
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import EvaluationPlan, Event, RunStarted
from lavant.v1.rule_pb2 import Rule
from lavant.v1.run_pb2 import RunKind, RunSettings

MOST_ROWS = 5_000  # of a segment
MOST_EVENTS = 20_000
_EVENT_BYTES = 64  # what the server adds to an event
_BATCH_BYTES = MAX_BATCH_BYTES - (16 << 10)
_RETRY_DELAY = 1.0  # seconds

Decision = Callable[[Ledger], list[Event]]
Revision = Callable[[Rule, Ledger], Awaitable[Rule | None]]

_log = structlog.get_logger(__name__)


class _Request(NamedTuple):
    """A decision that a caller waits for, and the future of its events."""

    decide: Decision
    done: "asyncio.Future[Sequence[Event]]"


class Coordinator:
    """Reads the ledger of a rule, and appends what is decided on it, as many decisions in a batch as have queued.

    A segment holds the events of a ledger; the rule's log has a record for each segment. An append is a
    compare-and-swap: if another replica was first, its events are read and all decisions are repeated. After a segment
    that is sealed, by any replica, the next one begins. All public methods may be cancelled at any time.
    """

    def __init__(self, rule: RunKey, engine: Engine, clock: Clock, metrics: ScoreMetrics | None = None) -> None:
        self.rule = rule
        self.ledger = Ledger(0)
        self.gone: ServiceError | None = None  # why there is no such rule any more
        self._engine = engine
        self._clock = clock
        self._metrics = metrics or ScoreMetrics()
        self._logs = SystemLogs(engine, clock)
        self.log = RuleLog(rule, engine, self._logs)
        self._record: Record | None = None
        self._head = 0  # of the segment, as far as is known
        self._stale = True  # whether there may be a record or an event that `_head` does not show
        self._lock = asyncio.Lock()  # for all that replaces the ledger
        self._queue: deque[_Request] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._listeners: dict[object, Callable[[], None]] = {}
        self._watch: Watch | None = None

    @property
    def record(self) -> Record:
        """The record in force; available after the first read."""
        assert self._record is not None  # noqa: S101 - callers read first
        return self._record

    @property
    def segment(self) -> RunKey:
        """The run that results are appended to now."""
        return segment_of(self.rule, self.record.segment)

    @contextmanager
    def listening(self, wake: Callable[[], None]) -> Iterator[None]:
        """Call `wake` after every change, also of other replicas, for the length of the block."""
        key = object()
        self._listeners[key] = wake
        self._watch_segment()
        try:
            yield
        finally:
            del self._listeners[key]
            if not self._listeners and self._watch is not None:
                self._watch.close()
                self._watch = None

    def notify(self) -> None:
        """Call all listeners."""
        for wake in tuple(self._listeners.values()):
            wake()

    async def read(self) -> None:
        """Read all that is stored by now; raises RULE_NOT_FOUND."""
        async with self._lock:
            await self._read()

    async def decide(self, decision: Decision) -> Sequence[Event]:
        """Append the events that a decision on the ledger returns, and return them once they are durable.

        The decision may be called several times; it must not change the ledger. What it raises is raised here. Where it
        returns no events, all that is stored was read before. Raises RULE_NOT_FOUND.
        """
        request = _Request(decision, asyncio.get_running_loop().create_future())
        self._queue.append(request)
        self._start()
        return await request.done

    async def revise(self, revision: Revision) -> None:
        """Seal the segment, and begin the next one with a changed rule and a ledger that may be changed too.

        None changes nothing. The revision may be called several times, each with a ledger of its own. Raises
        RULE_NOT_FOUND.
        """
        async with self._lock:
            while True:
                await self._read()
                known, draft = self.record, self.ledger.copy()
                rule = await revision(known.rule, draft)
                if rule is None:
                    return
                self._stale = True
                is_sealed = await self._append(self.segment, self.ledger.sequence, [self.ledger.end()])
                if is_sealed and await self.log.append(known.following(rule, draft), after=known):
                    break
            await self._read()

    async def delete(self) -> None:
        """Delete the rule and seal its segment; continue a deletion that was interrupted. Raises RULE_NOT_FOUND."""
        async with self._lock:
            self._stale = True
            while (record := await self.log.find()) is not None:
                if record.is_deleted or await self.log.append(None, after=record):
                    break
            if record is None:
                raise rule_not_found(self.rule.run_id)
            # Before a replica that does not know of the deletion begins it: nobody would seal it.
            await self._load(record)
            while not self.ledger.sealed:
                await self._append(self.segment, self.ledger.sequence, [self.ledger.end()])
                await self._load(record)
            await self.log.remove()
        self._start()  # listeners learn of it

    async def idle(self) -> None:
        """Wait until no decision is pending."""
        while self._worker is not None:
            await asyncio.wait((self._worker,))

    def _start(self) -> None:
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        try:
            while self._queue or self._is_behind():
                async with self._lock:
                    await self._turn()
        except Exception as error:
            self._fail(error)
        finally:
            self._worker = None

    def _fail(self, error: Exception) -> None:
        """Raise an error in all callers that wait. Retry later for listeners, unless the rule is deleted."""
        self._stale = True
        if self.gone is None:
            if not self._queue:
                _log.warning("rule_not_followed", tenant=self.rule.tenant, rule_id=self.rule.run_id, exc_info=error)
            self._clock.call_at(self._clock.monotonic() + _RETRY_DELAY, self._follow)
        while self._queue:
            _answer(self._queue.popleft(), error)
        self.notify()

    def _follow(self) -> None:
        if self._is_behind():
            self._start()

    def _is_behind(self) -> bool:
        return bool(self._listeners) and self.gone is None and (self._stale or self._head > self.ledger.sequence)

    async def _turn(self) -> None:
        """Read what is new, and append the next decisions: what cannot be done yet stays for another turn."""
        is_certain = self._stale
        if is_certain:
            await self._read()
        else:
            self._publish(await self._folded(self.ledger, self.segment, self._head))
        if self.ledger.sealed:
            self._stale = True
        elif self._queue:
            await self._decide(is_certain=is_certain)

    async def _decide(self, *, is_certain: bool) -> None:
        draft, events, answers = self._draft()
        if events:
            if not await self._append(self.segment, self.ledger.sequence, events):
                self._stale = True
                return
            self._publish(draft)
            self._metrics.add(events)
        elif not is_certain:
            self._stale = True
            return
        for answer in answers:
            _answer(self._queue.popleft(), answer)
        if draft.rows >= MOST_ROWS or draft.sequence >= MOST_EVENTS:
            self._stale = True
            await self._append(self.segment, draft.sequence, [draft.end()])

    def _draft(self) -> tuple[Ledger, list[Event], list["Sequence[Event] | Exception"]]:
        """Call as many queued decisions as fit in one batch; an error of one does not affect the others."""
        draft = self.ledger.copy()
        events: list[Event] = []
        answers: list[Sequence[Event] | Exception] = []
        size = 0
        for request in self._queue:
            try:
                found = [] if request.done.done() else request.decide(draft)
            except Exception as error:
                answers.append(error)
                continue
            size += sum(event.ByteSize() + _EVENT_BYTES for event in found)
            if events and (len(events) + len(found) > MAX_BATCH_EVENTS or size > _BATCH_BYTES):
                break
            for event in found:
                draft.fold(event)
            events += found
            answers.append(found)
        return draft, events, answers

    async def _append(
        self, segment: RunKey, after: int, events: Sequence[Event], create: RunSettings | None = None
    ) -> bool:
        """Append to a segment after a sequence; return whether no other replica was first."""
        try:
            await self._logs.append(segment, after, events, create=create)
        except OverwrittenError:
            return False
        except ServiceError as error:
            if error.reason in OVER:
                return False
            raise
        return True

    async def _read(self) -> None:
        """Read the record in force and its segment up to the head; begin the next segment after a sealed one."""
        while True:
            try:
                record = await self.log.get()
            except ServiceError as error:
                if error.reason == ErrorReason.ERROR_REASON_RULE_NOT_FOUND:
                    self.gone = error
                    self.notify()
                raise
            self.gone = None
            await self._load(record)
            if not self.ledger.sealed:
                break
            await self.log.append(record.following(record.rule, self.ledger), after=record)
        self._stale = False

    async def _load(self, record: Record) -> None:
        """Begin the segment of a record, unless it exists, and read it up to its head."""
        known = self._record
        is_same = known is not None and (known.created_ns, known.segment) == (record.created_ns, record.segment)
        segment = segment_of(self.rule, record.segment)
        head = await self._begin(segment, record.rule)
        ledger = await self._folded(self.ledger if is_same else record.ledger(), segment, head)
        self._record = record
        if not is_same:
            self._head = head
            if self._watch is not None:
                self._watch.close()
                self._watch = None
            self._watch_segment()
        self._publish(ledger)

    def _publish(self, ledger: Ledger) -> None:
        """Replace the ledger, and call the listeners if it is another one: nobody finds a part of what was read."""
        if ledger is not self.ledger:
            self.ledger = ledger
            self.notify()

    async def _begin(self, segment: RunKey, rule: Rule) -> int:
        """Begin a segment, unless it exists; return its last sequence. Safe to repeat, by any replica."""
        run = await self._engine.find_run(segment)
        if run is not None and run.last_sequence:
            return run.last_sequence
        settings = RunSettings(kind=RunKind.RUN_KIND_EVALUATION, name=self.rule.run_id, labels=RESULTS_OF_RULES)
        plan = EvaluationPlan(rule_id=self.rule.run_id, evaluators=rule.evaluators)
        if await self._append(segment, 0, [Event(run_started=RunStarted(evaluation=plan))], create=settings):
            return 1
        return (await self._engine.get_run(segment)).last_sequence

    async def _folded(self, ledger: Ledger, segment: RunKey, head: int) -> Ledger:
        """Return a ledger with the events of its segment up to a head."""
        if head <= ledger.sequence:
            return ledger
        ledger = ledger.copy()
        async for event in self._logs.read(segment, ledger.sequence, head):
            ledger.fold(event)
        return ledger

    def _watch_segment(self) -> None:
        """Watch the segment that results are appended to now, if there are listeners."""
        if self._listeners and self._watch is None and self._record is not None:
            self._watch = self._engine.watch(self.segment, self._observe)

    def _observe(self, notice: Notice) -> None:
        self._head = max(self._head, notice.last_sequence)
        self._stale = self._stale or notice.deleted
        self._follow()


def _answer(request: _Request, answer: Sequence[Event] | Exception) -> None:
    if request.done.done():
        return
    if isinstance(answer, Exception):
        request.done.set_exception(answer)
    else:
        request.done.set_result(answer)
