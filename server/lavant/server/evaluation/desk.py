"""One rule at work in this process: all that happens to its samples is decided here, one thing after the other."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import structlog

from lavant.contract.limits import MAX_BATCH_BYTES, MAX_BATCH_EVENTS
from lavant.server.clock import Clock
from lavant.server.errors import LavantError
from lavant.server.evaluation.ledger import Ledger
from lavant.server.evaluation.record import Record, segment_of
from lavant.server.evaluation.rulebook import Entry, Rulebook
from lavant.server.evaluation.segments import OVER, Segments, end_of
from lavant.server.measures import ScoreMeasures
from lavant.server.model import RunKey
from lavant.server.store.own_logs import OverwrittenError, OwnLogs
from lavant.server.store.port import Engine, Notice, Watch
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import Event
from lavant.v1.rule_pb2 import Rule

MOST_ROWS = 5_000  # of a segment
MOST_EVENTS = 20_000
_EVENT_BYTES = 64  # what the server adds to an event
_BATCH_BYTES = MAX_BATCH_BYTES - (16 << 10)
_RETRY_DELAY = 1.0  # seconds

Decision = Callable[[Ledger], list[Event]]
Revision = Callable[[Rule, Ledger], Awaitable[Rule | None]]

_log = structlog.get_logger(__name__)


class _Intent(NamedTuple):
    """What somebody wants to be done, and the promise of it."""

    done: "asyncio.Future[Any]"
    decide: Decision | None = None
    revise: Revision | None = None


class Desk:
    """Decides on a rule's ledger, and appends what was decided to its segment, as much at once as has queued.

    An append is a compare-and-swap: if another replica was first, its events are read and all is decided
    anew. A segment that is sealed, by whomever, is followed by the next one. Listeners are called after each change.
    """

    def __init__(
        self, rule: RunKey, engine: Engine, clock: Clock, rulebook: Rulebook, measures: ScoreMeasures | None = None
    ) -> None:
        self.rule = rule
        self.ledger = Ledger(0)
        self.gone: LavantError | None = None
        self._engine = engine
        self._clock = clock
        self._logs = OwnLogs(engine, clock)
        self._segments = Segments(engine, self._logs)
        self._rulebook = rulebook
        self._measures = measures or ScoreMeasures()
        self._entry: Entry | None = None
        self._head = 0
        self._stale = True
        self._queue: deque[_Intent] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._listeners: dict[object, Callable[[], None]] = {}
        self._watch: Watch | None = None

    @property
    def entry(self) -> Entry:
        """The rule's record; only once something was decided."""
        assert self._entry is not None  # noqa: S101 - the docstring says so
        return self._entry

    @property
    def segment(self) -> RunKey:
        """The run that results go to now."""
        return segment_of(self.rule, self.entry.record.segment)

    def listen(self, listener: object, wake: Callable[[], None]) -> None:
        """Hear of every change, also of those that other replicas make, until `forget`."""
        self._listeners[listener] = wake
        self._rewatch()

    def forget(self, listener: object) -> None:
        """Hear no more."""
        self._listeners.pop(listener, None)
        if not self._listeners and self._watch is not None:
            self._watch.close()
            self._watch = None

    async def ready(self) -> None:
        """Take in how the rule stands, if that is not known at all; raises RULE_NOT_FOUND."""
        if self._entry is None or self.gone is not None:
            await self.refresh()

    async def refresh(self) -> None:
        """Take in all that was stored by now; raises RULE_NOT_FOUND."""
        await self.decide(lambda _: [])

    async def decide(self, decide: Decision) -> list[Event]:
        """Append the events that a decision on the ledger gives, and return them once they are durable.

        The decision may be made several times; it must leave the ledger alone. What it raises is raised here.
        """
        events: list[Event] = await self._submit(_Intent(asyncio.get_running_loop().create_future(), decide=decide))
        return events

    async def revise(self, revise: Revision) -> None:
        """Seal the segment, and begin the next one with another rule and a ledger that may be changed too.

        None leaves all as it is. The revision may be made several times, each with a ledger of its own.
        """
        await self._submit(_Intent(asyncio.get_running_loop().create_future(), revise=revise))

    async def delete(self) -> None:
        """Delete the rule, seal its segment, and forget it; goes on with what was cut off. Raises RULE_NOT_FOUND."""
        while (entry := await self._rulebook.find(self.rule)) is not None:
            if entry.deleted or await self._rulebook.close(self.rule, entry):
                await self._segments.seal(self.rule, entry.record)
                await self._rulebook.remove(self.rule)
                break
        else:
            await self._rulebook.get(self.rule)
        self._stale = True
        self._start()

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        while self._worker is not None:
            await asyncio.wait((self._worker,))

    async def _submit(self, intent: _Intent) -> Any:
        self._queue.append(intent)
        self._start()
        return await intent.done

    def _start(self) -> None:
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        try:
            while self._queue or self._is_behind():
                await self._turn()
        except Exception as error:
            self._stale = True
            self._fail(error)
        finally:
            self._worker = None

    def _fail(self, error: Exception) -> None:
        """Answer everybody with what went wrong; who listens hears of what was missed once it goes on."""
        if isinstance(error, LavantError) and error.reason == ErrorReason.ERROR_REASON_RULE_NOT_FOUND:
            self.gone = error
        else:
            if not self._queue:
                _log.warning("rule_not_followed", rule_id=self.rule.run_id, exc_info=error)
            self._clock.call_at(self._clock.monotonic() + _RETRY_DELAY, self._go_on)
        while self._queue:
            intent = self._queue.popleft()
            if not intent.done.done():
                intent.done.set_exception(error)
        self.tell()

    def _go_on(self) -> None:
        if self._is_behind():
            self._start()

    def _is_behind(self) -> bool:
        return bool(self._listeners) and self.gone is None and (self._stale or self._head > self.ledger.sequence)

    async def _turn(self) -> None:
        """Do the next that is to be done; what cannot be done yet is left for another turn."""
        certain = self._stale or (bool(self._queue) and self._queue[0].revise is not None)
        if certain:
            await self._catch_up()
        else:
            await self._read_on()
        if self.ledger.sealed:
            await self._rulebook.replace(self.rule, self.entry, self.entry.record.following(self.ledger))
            self._stale = True
        elif not self._queue:
            self.tell()
        elif self._queue[0].revise is not None:
            await self._revise(self._queue[0].revise)
        else:
            await self._decide(certain=certain)

    async def _decide(self, *, certain: bool) -> None:
        draft, events, answers = self._draft()
        if events:
            if not await self._append(events):
                return
            self.ledger = draft
            self._measures.add(events)
        elif not certain:
            self._stale = True
            return
        for answer in answers:
            _answer(self._queue.popleft(), answer)
        if events:
            self.tell()
        if draft.rows >= MOST_ROWS or draft.sequence >= MOST_EVENTS:
            await self._append([end_of(draft)])
            self._stale = True

    def _draft(self) -> tuple[Ledger, list[Event], list["Sequence[Event] | Exception"]]:
        """Decide as much of what has queued as fits in one batch; what one raises is nobody else's."""
        draft = self.ledger.copy()
        events: list[Event] = []
        answers: list[Sequence[Event] | Exception] = []
        size = 0
        for intent in self._queue:
            if intent.decide is None:
                break
            try:
                found = [] if intent.done.done() else intent.decide(draft)
            except Exception as error:
                answers.append(error)
                continue
            size += size_of(found)
            if events and (len(events) + len(found) > MAX_BATCH_EVENTS or size > _BATCH_BYTES):
                break
            for event in found:
                draft.fold(event)
            events += found
            answers.append(found)
        return draft, events, answers

    async def _revise(self, revise: Revision) -> None:
        entry, draft = self.entry, self.ledger.copy()
        try:
            rule = await revise(entry.record.rule, draft)
        except Exception as error:
            _answer(self._queue.popleft(), error)
            return
        if rule is None:
            _answer(self._queue.popleft(), ())
            return
        if not await self._append([end_of(self.ledger)]):
            return
        self._stale = True
        record = Record(rule=rule, segment=entry.record.segment + 1, carried=draft.carry())
        if await self._rulebook.replace(self.rule, entry, record):
            await self._catch_up()
            _answer(self._queue.popleft(), ())
            self.tell()

    async def _append(self, events: Sequence[Event]) -> bool:
        """Append to the segment; tells whether nobody else was first."""
        try:
            await self._logs.append(self.segment, self.ledger.sequence, events)
        except OverwrittenError:
            pass
        except LavantError as error:
            if error.reason not in OVER:
                raise
        else:
            return True
        self._stale = True
        return False

    async def _catch_up(self) -> None:
        """Find the segment that results go to now, and read it up to its end."""
        entry = await self._rulebook.get(self.rule)
        known, self._entry = self._entry, entry
        self.gone = None
        if known is None or (known.created_ns, known.record.segment) != (entry.created_ns, entry.record.segment):
            self.ledger = entry.record.ledger()
            self._head = 0
            self._rewatch()
        self._head = max(self._head, await self._segments.begin(self.rule, entry.record))
        await self._read_on()
        self._stale = False

    async def _read_on(self) -> None:
        if self._head > self.ledger.sequence:
            ledger = self.ledger.copy()
            async for event in self._logs.read(self.segment, ledger.sequence, self._head):
                ledger.fold(event)
            self.ledger = ledger

    def _rewatch(self) -> None:
        """Watch the segment that results go to now, if anybody listens."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._listeners and self._entry is not None:
            self._watch = self._engine.watch(self.segment, self._observe)
            self._stale = True

    def _observe(self, notice: Notice) -> None:
        self._head = max(self._head, notice.last_sequence)
        self._stale = self._stale or notice.deleted
        self._go_on()

    def tell(self) -> None:
        """Have all who listen look again."""
        for wake in tuple(self._listeners.values()):
            wake()


def size_of(events: Sequence[Event]) -> int:
    """About how many bytes some events take in a batch."""
    return sum(event.ByteSize() + _EVENT_BYTES for event in events)


def _answer(intent: _Intent, answer: "Sequence[Event] | Exception") -> None:
    if intent.done.done():
        return
    if isinstance(answer, Exception):
        intent.done.set_exception(answer)
    else:
        intent.done.set_result(answer)
