"""Draws samples from finished runs: those that finish, and behind them those of a look back."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.server.clock import Clock
from lavant.server.errors import LavantError
from lavant.server.evaluation.desk import Desk
from lavant.server.evaluation.feed import Gap, Look, again_position, drawn_event, live_position, look_position
from lavant.server.evaluation.ledger import Ledger
from lavant.server.evaluation.matching import Matcher
from lavant.server.evaluation.outcomes import find_ended
from lavant.server.model import RunKey, is_terminal
from lavant.server.store.port import Engine, RunChange, RunQuery
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import EventBatch
from lavant.v1.rule_pb2 import BackfillMode, Rule
from lavant.v1.run_pb2 import Run, RunState
from lavant.v1.run_service_pb2 import RunFilter

PAGE = 1_000  # runs
_ENOUGH = 500  # samples that wait
HEAVIEST = 350 << 10  # bytes of samples, waiting or held: a ledger must fit in an event
_UNRECORDED = 1_000  # runs that may be looked at without a trace, if none was drawn
_KEPT_BYTES = 4 << 20  # of runs that were drawn
_READ_AT_ONCE = 16
_RETRY_DELAY = 1.0  # seconds
_ENDED = [state for state in RunState.values() if is_terminal(state)]

_log = structlog.get_logger(__name__)


class _Looked(NamedTuple):
    """Runs that were looked at behind a position, of which the ledger does not know yet."""

    base: int
    revision: int
    reached: int
    seen: int


class _RunPage(Protocol):
    @property
    def run_ids(self) -> list[str]: ...

    @property
    def next_after(self) -> str | None: ...


class ScoredRuns(Protocol):
    """Selects runs by the scores that a rule has recorded."""

    async def page(self, tenant: str, rule: Rule, mode: "BackfillMode.ValueType", after: str) -> _RunPage:
        """Return the IDs of the next runs, and after which ID the next page begins; None: there is none."""


class Drawer:
    """Walks along the feed of changes for one rule, as long as somebody wants samples.

    What is not drawn lies in the feed. `caught_up` tells whether the feed was looked at up to its end.
    """

    def __init__(
        self,
        desk: Desk,
        engine: Engine,
        clock: Clock,
        wanted: Callable[[], bool],
        scored_runs: ScoredRuns | None = None,
    ) -> None:
        self.caught_up = False
        self._desk = desk
        self._engine = engine
        self._clock = clock
        self._wanted = wanted
        self._scored_runs = scored_runs
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._runs_size = 0
        self._looked: _Looked | None = None
        self._matcher: Matcher | None = None
        self._matched: RunKey | None = None  # the segment that it was made for: a changed rule has another one
        self._awake = asyncio.Event()
        self._has_news = False

    async def run(self) -> None:
        """Draw until cancelled."""
        self.caught_up = False
        news = self._engine.watch_changes(self._desk.rule.tenant, self._on_news)
        listener = object()  # the next drawing may begin before this one has come to its end
        self._desk.listen(listener, self._awake.set)
        try:
            while True:
                self._awake.clear()
                if not (self._has_demand() and await self._draw()):
                    await self._awake.wait()
        finally:
            self._desk.forget(listener)
            news.close()

    def wake(self) -> None:
        """Look again at whether samples are wanted."""
        self._awake.set()

    def take_run(self, run_id: str) -> Run | None:
        """A run that was drawn lately, as it ended; each is given once."""
        run = self._runs.pop(run_id, None)
        if run is not None:
            self._runs_size -= run.ByteSize()
        return run

    def forget(self) -> None:
        """Keep nothing for workers that are gone."""
        self._looked = None
        self._runs.clear()
        self._runs_size = 0

    def _on_news(self) -> None:
        self.caught_up = False
        self._has_news = True
        self._awake.set()

    def _has_demand(self) -> bool:
        ledger = self._desk.ledger
        return self._wanted() and ledger.waiting < _ENOUGH and ledger.weight < HEAVIEST

    async def _draw(self) -> bool:
        """Look at the next finished runs; tells whether there may be more."""
        try:
            return await self._look_on()
        except LavantError as error:
            if self._desk.gone is None:
                _log.warning("drawing_failed", rule_id=self._desk.rule.run_id, error=error.message)
        except Exception:
            _log.exception("drawing_failed", rule_id=self._desk.rule.run_id)
        self._clock.call_at(self._clock.monotonic() + _RETRY_DELAY, self._awake.set)
        return False

    async def _look_on(self) -> bool:
        desk = self._desk
        if desk.gone is not None:
            return False
        self._has_news = False
        paused = desk.entry.record.rule.paused
        if not paused and (await self._look_at_news() or await self._look_back()):
            self.caught_up = False
            return True
        if self._has_news:
            return True
        if not self.caught_up:
            self.caught_up = True
            desk.tell()
        return False

    async def _look_at_news(self) -> bool:
        """Look at runs that finished; tells whether there were any changes."""
        ledger = self._desk.ledger
        looked = self._looked
        if looked is None or (looked.base, looked.revision) != (ledger.position, ledger.revision):
            looked = _Looked(ledger.position, ledger.revision, ledger.position, 0)
        matcher = self._current_matcher()
        changes, reached = await self._engine.list_changes(self._query(matcher, RunFilter()), looked.reached)
        if reached == looked.reached:
            return False
        chosen, seen = await self._choose(matcher, changes)
        looked = self._looked = looked._replace(reached=reached, seen=looked.seen + seen)
        if not chosen and looked.seen < _UNRECORDED:
            return True

        def draw(ledger: Ledger) -> list[Event]:
            if (ledger.position, ledger.revision) != (looked.base, looked.revision):
                return []  # somebody else was first
            return [drawn_event([*chosen], looked.seen, live_position(looked.reached))]

        await self._record(draw, chosen)
        return True

    async def _look_back(self) -> bool:
        """Look at runs that were missed; tells whether there are any left."""
        look = self._desk.ledger.look
        if look is None or look.done:
            return False
        if look.mode:
            return await self._look_again(look)
        gap, revision = self._desk.ledger.gaps[look.at], self._desk.ledger.revision
        matcher = self._current_matcher()
        query = self._query(matcher, _created_within(look))
        changes, reached = await self._engine.list_changes(query, look.position, gap.until)
        chosen, seen = await self._choose(matcher, [change for change in changes if not _was_seen(gap, change.run)])

        def draw(ledger: Ledger) -> list[Event]:
            if (ledger.look, ledger.revision) != (look, revision):
                return []  # somebody else was first
            return [drawn_event([*chosen], seen, look_position(reached))]

        await self._record(draw, chosen)
        return True

    async def _look_again(self, look: Look) -> bool:
        """Look at runs that were scored; tells whether there are any left."""
        assert self._scored_runs is not None  # noqa: S101 - a server that serves workers keeps scores
        tenant, revision = self._desk.rule.tenant, self._desk.ledger.revision
        page = await self._scored_runs.page(tenant, self._desk.entry.record.rule, look.mode, look.after)
        found: list[Run] = []
        for start in range(0, len(page.run_ids), _READ_AT_ONCE):
            keys = [RunKey(tenant, run_id) for run_id in page.run_ids[start : start + _READ_AT_ONCE]]
            runs = await asyncio.gather(*(find_ended(self._engine, key) for key in keys))
            found += [run for run in runs if run is not None]
        chosen = {run.run_id: run for run in found if look.window.holds(run.create_time.ToNanoseconds())}

        def draw(ledger: Ledger) -> list[Event]:
            if (ledger.look, ledger.revision) != (look, revision):
                return []  # somebody else was first
            return [drawn_event([*chosen], len(page.run_ids), again_position(page.next_after))]

        await self._record(draw, chosen)
        return True

    async def _record(self, draw: Callable[[Ledger], list[Event]], chosen: dict[str, Run]) -> None:
        self._looked = None
        if await self._desk.decide(draw):
            for run_id, run in chosen.items():
                self.take_run(run_id)
                self._runs[run_id] = run
                self._runs_size += run.ByteSize()
            while self._runs_size > _KEPT_BYTES:
                self.take_run(next(iter(self._runs)))

    async def _choose(self, matcher: Matcher, changes: Sequence[RunChange]) -> tuple[dict[str, Run], int]:
        """The runs that are wanted, and how many were looked at."""
        runs = [change.run for change in changes if matcher.looks_at(change.run)]
        chosen = {run.run_id: run for run in runs if matcher.wants(run)}
        if matcher.needs_input:
            wanted = list(chosen.values())
            for start in range(0, len(wanted), _READ_AT_ONCE):
                some = wanted[start : start + _READ_AT_ONCE]
                for run, text in zip(some, await asyncio.gather(*map(self._input_of, some)), strict=True):
                    if text is None or not matcher.wants_input(text):
                        del chosen[run.run_id]
        return chosen, len(runs)

    async def _input_of(self, run: Run) -> str | None:
        """The input of a run; None: it was deleted."""
        key = RunKey(self._desk.rule.tenant, run.run_id)
        try:
            chunks = await self._engine.read(key, 0, 1, run.create_time.ToNanoseconds())
        except LavantError as error:
            if error.reason == ErrorReason.ERROR_REASON_RUN_NOT_FOUND:
                return None
            raise
        return EventBatch.FromString(chunks[0].data).events[0].run_started.input_json

    def _current_matcher(self) -> Matcher:
        if self._matcher is None or self._matched != self._desk.segment:
            self._matcher, self._matched = Matcher(self._desk.entry.record.rule), self._desk.segment
        return self._matcher

    def _query(self, matcher: Matcher, wanted: RunFilter) -> RunQuery:
        wanted.kinds.extend(matcher.kinds)
        wanted.states.extend(_ENDED)
        return RunQuery(tenant=self._desk.rule.tenant, limit=PAGE, filter=wanted)


def _was_seen(gap: Gap, run: Run) -> bool:
    create_ns = run.create_time.ToNanoseconds()
    return any(window.holds(create_ns) for window in gap.windows)


def _created_within(look: Look) -> RunFilter:
    after, before = look.window
    return RunFilter(
        created_after=None if after is None else _timestamp(after),
        created_before=None if before is None else _timestamp(before),
    )


def _timestamp(ns: int) -> Timestamp:
    return Timestamp(seconds=ns // 1_000_000_000, nanos=ns % 1_000_000_000)


async def first_unseen(desk: Desk, engine: Engine) -> Run | None:
    """Find the first finished run that a rule will draw, among the next ones behind what it has looked at."""
    matcher = Matcher(desk.entry.record.rule)
    wanted = RunFilter(kinds=matcher.kinds, states=_ENDED)
    query = RunQuery(tenant=desk.rule.tenant, limit=PAGE, filter=wanted)
    changes, _ = await engine.list_changes(query, desk.ledger.position)
    runs = (change.run for change in changes if matcher.looks_at(change.run) and matcher.wants(change.run))
    return next(runs, None)
