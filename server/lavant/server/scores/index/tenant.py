"""Scores of one tenant: the feeds and logs that they are read from, and how far."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence

import structlog

from lavant.contract.limits import OWN_RUNS
from lavant.server.errors import ServiceError
from lavant.server.model import RESULTS_OF_RULES, RunKey, beside, is_terminal
from lavant.server.scores.index.database import ScoreIndex
from lavant.server.scores.index.intake import Found, Intake, LogPosition, Source, take_in
from lavant.server.scores.recorder import RECORDED
from lavant.server.store.port import Engine, RunQuery, Watch
from lavant.server.streaming.reader import Selection, Span, type_mask
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import EventType
from lavant.v1.event_service_pb2 import DeltaMode
from lavant.v1.run_pb2 import Run, RunKind, RunState
from lavant.v1.run_service_pb2 import RunFilter

_PAGE = 500  # runs
_AT_ONCE = 50  # runs that are read together
_READ_BYTES = 1 << 20
_SEALING = EventType.EVENT_TYPE_RUN_FINISHED
_SCORES = type_mask([EventType.EVENT_TYPE_SCORE_RECORDED, EventType.EVENT_TYPE_ROW_FINISHED])
_ENDED = RunFilter(states=[state for state in RunState.values() if is_terminal(state)])
_RESULTS = RunFilter(kinds=[RunKind.RUN_KIND_EVALUATION], labels=RESULTS_OF_RULES)

_log = structlog.get_logger(__name__)


def is_followed(name: str) -> bool:
    """Return whether scores may be found in a feed: in that of a caller's tenant, or of the scores beside it."""
    _, _, part = name.partition("/")
    return part in ("", RECORDED)


class TenantScores:
    """Reader of a tenant's scores into the index. `is_complete`: all that was stored at the start has been read.

    Scores are stored in one transaction with the position that was read: each is indexed once, whenever a process dies.
    Feeds and logs without a change since the last pass are not read. `on_change` is called when there is something to
    read.
    """

    def __init__(self, tenant: str, engine: Engine, index: ScoreIndex, on_change: Callable[[], object]) -> None:
        self.feeds: dict[str, int] = {}
        self.is_complete = False
        self.version = 0  # grows with the scores in the index
        self._tenant = tenant
        self._engine = engine
        self._index = index
        self._on_change = on_change
        self._logs: dict[RunKey, LogPosition] = {}
        self._watches: dict[RunKey, Watch] = {}
        self._changed: set[Hashable] = set()  # feeds and logs that have something to read
        self._waiting: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    @property
    def is_current(self) -> bool:
        """Whether there is nothing to read."""
        return self.is_complete and not self._changed and self._task is None

    def changed(self, source: Hashable) -> None:
        """Note that a feed or a log has changed."""
        self._changed.add(source)
        self._on_change()

    def follow(self, key: RunKey, position: LogPosition) -> None:
        """Read a log from a position on."""
        self._logs[key] = position
        if not position.sealed:
            self.changed(key)
            if key not in self._watches:
                self._watches[key] = self._engine.watch(key, lambda _: self.changed(key))

    async def read_by_now(self) -> None:
        """Wait until all that is known by now was tried to be read."""
        passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(passed)
        self._start()
        await passed

    async def read_changed(self) -> None:
        """Wait for a pass over what has changed; it continues if the caller is cancelled. Failures are logged."""
        await asyncio.wait((self._start(),))

    async def close(self) -> None:
        """Stop reading."""
        for watch in self._watches.values():
            watch.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def _start(self) -> "asyncio.Task[None]":
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._pass())
        return self._task

    async def _pass(self) -> None:
        """Read until nothing is left, and again if a caller has asked meanwhile."""
        try:
            while True:
                waiting, self._waiting = self._waiting, []
                await self._read()
                for passed in waiting:
                    if not passed.done():
                        passed.set_result(None)
                if not self._waiting:
                    return
        finally:
            self._task = None

    async def _read(self) -> None:
        try:
            recorded = RunQuery(tenant=beside(self._tenant, RECORDED), limit=_PAGE, filter=_ENDED)
            await self._read_feed(recorded, self._take_recorded)
            results = RunQuery(tenant=self._tenant, limit=_PAGE, filter=_RESULTS)
            await self._read_feed(results, self._take_results)
            for key in [key for key in self._logs if key in self._changed]:
                await self._read_log(key)
        except Exception as error:
            self._on_change()  # the next pass tries again
            self._log_first_failure(error)
        else:
            self.is_complete, self._failing = True, False

    def _log_first_failure(self, error: Exception) -> None:
        """Log the first of several failures in a row."""
        if not self._failing:
            self._failing = True
            known = isinstance(error, ServiceError)
            _log.warning(
                "scores_not_read", tenant=self._tenant, error=str(error) if known else None, exc_info=not known
            )

    async def _read_feed(self, query: RunQuery, take: Callable[[Sequence[Run], Intake], Awaitable[None]]) -> None:
        if query.tenant not in self._changed:
            return
        self._changed.discard(query.tenant)
        try:
            while True:
                after = self.feeds.get(query.tenant, 0)
                changes, position = await self._engine.list_changes(query, after)
                if position == after:
                    return
                intake = Intake(feeds={query.tenant: position})
                await take([change.run for change in changes], intake)
                await self._index.write(take_in, intake)
                self.version += bool(intake.found)
                self.feeds[query.tenant] = position
                for key, reached in intake.logs.items():
                    self.follow(key, reached)
        except BaseException:
            self._changed.add(query.tenant)
            raise

    async def _take_recorded(self, runs: Sequence[Run], intake: Intake) -> None:
        """Take in the scores of runs by RecordScore, which hold one each."""
        for start in range(0, len(runs), _AT_ONCE):
            some = [(RunKey(beside(self._tenant, RECORDED), run.run_id), run) for run in runs[start : start + _AT_ONCE]]
            reads = [self._read_next(key, LogPosition(run.create_time.ToNanoseconds())) for key, run in some]
            intake.found += [scores for scores, _ in await asyncio.gather(*reads)]

    async def _take_results(self, runs: Sequence[Run], intake: Intake) -> None:
        """Take in the logs of rules' results, among other runs that only look so: see `_is_result`."""
        for run in filter(_is_result, runs):
            key, created_ns = RunKey(self._tenant, run.run_id), run.create_time.ToNanoseconds()
            if key not in self._logs or self._logs[key].created_ns != created_ns:
                intake.logs[key] = LogPosition(created_ns)

    async def _read_log(self, key: RunKey) -> None:
        self._changed.discard(key)
        try:
            while not self._logs[key].sealed:
                position = self._logs[key]
                found, reached = await self._read_next(key, position)
                if reached == position:
                    return
                await self._index.write(take_in, Intake(found=[found], logs={key: reached}))
                self.version += 1
                self._logs[key] = reached
        except BaseException:
            self._changed.add(key)
            raise
        self._changed.discard(key)  # its change was reported after its end had been read
        if (watch := self._watches.pop(key, None)) is not None:
            watch.close()

    async def _read_next(self, key: RunKey, position: LogPosition) -> tuple[Found, LogPosition]:
        """Read the next scores of a log, and up to where; a deleted log has no further ones."""
        source = Source(key, position.created_ns)
        try:
            chunks = await self._engine.read(key, position.sequence, _READ_BYTES, position.created_ns)
        except ServiceError as error:
            if error.reason != ErrorReason.ERROR_REASON_RUN_NOT_FOUND:
                raise
            return Found(self._tenant, source, b""), position._replace(sealed=True)
        if not chunks:
            return Found(self._tenant, source, b""), position
        after = position.sequence
        spans = [Span(chunk, max(0, after + 1 - chunk.first_sequence), len(chunk.types)) for chunk in chunks]
        scores = b"".join(Selection(_SCORES, DeltaMode.DELTA_MODE_ALL).cut(spans))
        last = chunks[-1]
        reached = position._replace(sequence=last.last_sequence, sealed=last.types[-1] == _SEALING)
        return Found(self._tenant, source, scores), reached


def _is_result(run: Run) -> bool:
    """Return whether the server itself wrote a run."""
    return run.run_id.startswith(OWN_RUNS)
