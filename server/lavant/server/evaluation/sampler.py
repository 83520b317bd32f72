"""Sampler of a rule: selects samples from runs that finish, then from those of a backfill."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol, TypeVar

import structlog

from lavant.internal.v1.system_record_pb2 import SamplesSelected, SystemRecord
from lavant.server.clock import Clock
from lavant.server.errors import ServiceError
from lavant.server.evaluation.coordinator import Coordinator
from lavant.server.evaluation.ledger import Ledger, Pass, Window
from lavant.server.evaluation.matching import Matcher
from lavant.server.model import RunKey, is_terminal
from lavant.server.scores.query.scored_runs import ScoredRuns
from lavant.server.store.port import Engine, RunQuery
from lavant.server.store.system_logs import system_event
from lavant.server.streaming.frames import timestamp
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import EventBatch
from lavant.v1.run_pb2 import Run, RunState
from lavant.v1.run_service_pb2 import RunFilter

PAGE = 1_000  # runs
_ENOUGH = 500  # waiting samples, at which no more are selected
HEAVIEST = 350 << 10  # bytes of samples, waiting or held: a ledger must fit in an event
_UNRECORDED = 1_000  # runs that may be examined without a record, if none was selected
_KEPT_BYTES = 4 << 20  # of selected runs
_AT_ONCE = 16
_RETRY_DELAY = 1.0  # seconds
_ENDED = [state for state in RunState.values() if is_terminal(state)]
_EVERY = Window(None, None)
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_log = structlog.get_logger(__name__)


class Worker(Protocol):
    """A session that samples are assigned to."""

    def wants_samples(self) -> bool:
        """Return whether more samples can be assigned to the worker."""

    def wake(self) -> None:
        """Have the worker check again what it can do."""


class _Unrecorded(NamedTuple):
    """Runs that were examined on a basis, up to a position, and are not recorded in the ledger yet."""

    basis: object
    reached: int
    examined: int


class Sampler:
    """Reads the feed of changes for one rule, while its workers want samples.

    Runs that were not examined yet stay in the feed.
    """

    def __init__(
        self, coordinator: Coordinator, engine: Engine, clock: Clock, scored_runs: ScoredRuns | None = None
    ) -> None:
        self.coordinator = coordinator
        self.workers: set[Worker] = set()
        self._has_examined_all = False
        self._engine = engine
        self._clock = clock
        self._scored_runs = scored_runs
        self._runs: OrderedDict[str, Run] = OrderedDict()  # selected lately, as they ended
        self._runs_size = 0
        self._unrecorded: _Unrecorded | None = None
        self._awake = asyncio.Event()
        self._has_news = False
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def serving(self, worker: Worker) -> Iterator[None]:
        """Select samples for a worker, and wake it after each change, for the length of the block."""
        self.workers.add(worker)
        self._awake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            with self.coordinator.listening(worker.wake):
                yield
        finally:
            self.workers.discard(worker)
            if not self.workers and self._task is not None:
                self._task.cancel()
                self._task = None
                self._unrecorded = None
                self._runs.clear()
                self._runs_size = 0

    @property
    def caught_up(self) -> bool:
        """Whether the feed was examined up to its end, and all runs of a backfill."""
        backfill = self.coordinator.ledger.backfill
        is_done = backfill is None or backfill.done or self.coordinator.record.rule.paused
        return self._has_examined_all and is_done

    def take_run(self, run_id: str) -> Run | None:
        """Return a run that was selected lately, as it ended; None: it is not kept, or was returned before."""
        run = self._runs.pop(run_id, None)
        if run is not None:
            self._runs_size -= run.ByteSize()
        return run

    async def oldest_ns(self) -> int | None:
        """Return when the oldest waiting run ended; without workers, it has not been selected yet."""
        ledger, rule = self.coordinator.ledger, self.coordinator.record.rule
        waiting = next((sample.run_id for sample in ledger.samples.values() if not sample.session_id), None)
        run = None
        if waiting is not None:
            run = await self._find(waiting)
        elif not rule.paused:
            matcher = Matcher(rule)
            runs, _ = await self._finished_runs(matcher, ledger.position)
            run = next((run for run in runs if matcher.examines(run) and matcher.wants(run)), None)
        return None if run is None else run.end_time.ToNanoseconds()

    async def _run(self) -> None:
        """Select samples until cancelled."""
        self._has_examined_all = False
        news = self._engine.watch_changes(self.coordinator.rule.tenant, self._on_news)
        try:
            with self.coordinator.listening(self._awake.set):
                while True:
                    self._awake.clear()
                    if not (self._has_demand() and await self._select()):
                        await self._awake.wait()
        finally:
            news.close()

    def _on_news(self) -> None:
        self._has_examined_all = False
        self._has_news = True
        self._awake.set()

    def _has_demand(self) -> bool:
        ledger = self.coordinator.ledger
        is_filled = ledger.waiting >= _ENOUGH or ledger.weight >= HEAVIEST
        return not is_filled and any(worker.wants_samples() for worker in self.workers)

    async def _select(self) -> bool:
        """Examine the next finished runs; return whether there may be more. Retry later after a failure."""
        tenant, rule_id = self.coordinator.rule
        try:
            return await self._examine()
        except ServiceError as error:
            if self.coordinator.gone is None:
                _log.warning("sampling_failed", tenant=tenant, rule_id=rule_id, error=error.message)
        except Exception:
            _log.exception("sampling_failed", tenant=tenant, rule_id=rule_id)
        self._clock.call_at(self._clock.monotonic() + _RETRY_DELAY, self._awake.set)
        return False

    async def _examine(self) -> bool:
        if self.coordinator.gone is not None:
            return False
        self._has_news = False
        rule = self.coordinator.record.rule
        if not rule.paused:
            matcher = Matcher(rule)
            if await self._examine_news(matcher) or await self._examine_backfill(matcher):
                self._has_examined_all = False
                return True
        if self._has_news:
            return True
        if not self._has_examined_all:
            self._has_examined_all = True
            self.coordinator.notify()
        return False

    async def _examine_news(self, matcher: Matcher) -> bool:
        """Examine runs that finished; return whether there were any changes."""
        ledger, last = self.coordinator.ledger, self._unrecorded
        if last is None or last.basis != _basis(ledger):
            last = _Unrecorded(_basis(ledger), ledger.position, 0)
        runs, reached = await self._finished_runs(matcher, last.reached)
        if reached == last.reached:
            return False
        chosen, examined = await self._choose(matcher, runs)
        self._unrecorded = last = last._replace(reached=reached, examined=last.examined + examined)
        if chosen or last.examined >= _UNRECORDED:
            await self._record(lambda now: _basis(now) == last.basis, chosen, last.examined, live=str(reached))
        return True

    async def _examine_backfill(self, matcher: Matcher) -> bool:
        """Examine the next runs of a backfill; return whether there are any left."""
        ledger = self.coordinator.ledger
        backfill = ledger.backfill
        if backfill is None or backfill.done:
            return False

        def is_current(now: Ledger) -> bool:
            return (now.backfill, now.revision) == (backfill, ledger.revision)

        if backfill.mode:
            run_ids, after = await self._scored(backfill)
            found = await few_at_once(self._find, run_ids)
            chosen = {
                run.run_id: run for run in found if run and backfill.window.holds(run.create_time.ToNanoseconds())
            }
            await self._record(is_current, chosen, len(run_ids), after_run_id=after)
            return True
        gap = ledger.gaps[backfill.at]
        runs, reached = await self._finished_runs(matcher, backfill.position, gap.until, backfill.window)
        unseen = [run for run in runs if not any(w.holds(run.create_time.ToNanoseconds()) for w in gap.windows)]
        chosen, examined = await self._choose(matcher, unseen)
        await self._record(is_current, chosen, examined, backfill=str(reached))
        return True

    async def _record(
        self, is_current: Callable[[Ledger], bool], chosen: dict[str, Run], examined: int, **position: str
    ) -> None:
        """Record runs that were examined and chosen, if the ledger is current: unless another replica was first."""
        self._unrecorded = None
        if await self.coordinator.decide(
            lambda ledger: [selected(chosen, examined, **position)] if is_current(ledger) else []
        ):
            for run_id, run in chosen.items():
                self.take_run(run_id)
                self._runs[run_id] = run
                self._runs_size += run.ByteSize()
            while self._runs_size > _KEPT_BYTES:
                self.take_run(next(iter(self._runs)))

    async def _finished_runs(
        self, matcher: Matcher, after: int, until: int | None = None, created: Window = _EVERY
    ) -> tuple[list[Run], int]:
        """Return the next runs of the rule's kinds that finished, and the position up to which they were read."""
        wanted = RunFilter(
            kinds=matcher.kinds,
            states=_ENDED,
            created_after=None if created.after_ns is None else timestamp(created.after_ns),
            created_before=None if created.before_ns is None else timestamp(created.before_ns),
        )
        query = RunQuery(tenant=self.coordinator.rule.tenant, limit=PAGE, filter=wanted)
        changes, reached = await self._engine.list_changes(query, after, until)
        return [change.run for change in changes], reached

    async def _scored(self, backfill: Pass) -> tuple[Sequence[str], str]:
        """Return the next runs that a backfill selects by their scores, and the last one examined; empty: all were."""
        assert self._scored_runs is not None  # noqa: S101 - a server with workers has scores
        rule = self.coordinator.record.rule
        page = await self._scored_runs.page(self.coordinator.rule.tenant, rule, backfill.mode, backfill.after)
        return page.run_ids, page.next_after or ""

    async def _find(self, run_id: str) -> Run | None:
        return await find_ended(self._engine, RunKey(self.coordinator.rule.tenant, run_id))

    async def _choose(self, matcher: Matcher, runs: Iterable[Run]) -> tuple[dict[str, Run], int]:
        """Return the runs that the rule wants, and how many were examined."""
        examined = [run for run in runs if matcher.examines(run)]
        chosen = {run.run_id: run for run in examined if matcher.wants(run)}
        if matcher.needs_input:
            texts = await few_at_once(self._input_of, list(chosen.values()))
            for run_id, text in zip(list(chosen), texts, strict=True):
                if text is None or not matcher.wants_input(text):
                    del chosen[run_id]
        return chosen, len(examined)

    async def _input_of(self, run: Run) -> str | None:
        """Return the input of a run; None: it was deleted."""
        key = RunKey(self.coordinator.rule.tenant, run.run_id)
        try:
            chunks = await self._engine.read(key, 0, 1, run.create_time.ToNanoseconds())
        except ServiceError as error:
            if error.reason == ErrorReason.ERROR_REASON_RUN_NOT_FOUND:
                return None
            raise
        return EventBatch.FromString(chunks[0].data).events[0].run_started.input_json


def _basis(ledger: Ledger) -> object:
    """Return what a selection from runs that finish depends on; a backfill may be recorded meanwhile."""
    return ledger.position, ledger.revision


async def few_at_once(call: Callable[[_Item], Awaitable[_Result]], items: Sequence[_Item]) -> list[_Result]:
    """Return the results of a call for each item, in their order, of which 16 at most are under way at a time."""
    found: list[_Result] = []
    for start in range(0, len(items), _AT_ONCE):
        found += await asyncio.gather(*map(call, items[start : start + _AT_ONCE]))
    return found


async def find_ended(engine: Engine, key: RunKey) -> Run | None:
    """Find a run as it ended; None: it was deleted, even if a new run of the same ID has not ended."""
    run = await engine.find_run(key)
    return run if run is not None and is_terminal(run.state) else None


def selected(run_ids: Iterable[str], examined: int, **position: str) -> Event:
    """Return the record of runs that were selected, among so many examined ones, up to a position."""
    record = SamplesSelected(run_ids=run_ids, runs_examined=examined, **position)
    return system_event(SystemRecord(samples_selected=record))
