"""Keeps the index up to date with the logs."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

import structlog

from lavant.server.clock import Clock
from lavant.server.errors import LavantError, unavailable
from lavant.server.model import RunKey
from lavant.server.periodic import Periodic
from lavant.server.scores import sources
from lavant.server.scores.index import ScoreIndex
from lavant.server.scores.intake import Intake, LogProgress
from lavant.server.store.port import Engine, RunQuery, Watch
from lavant.v1.run_pb2 import Run

_INTERVAL = 1.0  # seconds between two looks, unless somebody asks
_PATIENCE = 1.0  # seconds that who asks waits for a look

_log = structlog.get_logger(__name__)


class Follower(Periodic):
    """Reads on in feeds and logs, every second and whenever somebody asks, from `async with` to its end.

    What was read is stored together with how far that is: each score is taken in once, whatever dies in between.
    Nothing is read where nothing was heard of since the last look.
    """

    def __init__(self, engine: Engine, index: ScoreIndex, clock: Clock, tenants: Sequence[str]) -> None:
        super().__init__(clock, _INTERVAL)
        self._engine = engine
        self._index = index
        self._tenants = tenants
        self._feeds: dict[str, int] = {}
        self._logs: dict[RunKey, LogProgress] = {}
        self._watches: dict[Hashable, Watch] = {}
        self._news: set[Hashable] = set()  # tenants whose feeds, and logs, that have something to read
        self._waiting: list[asyncio.Future[None]] = []
        self._complete = self._failing = False

    async def __aenter__(self) -> Self:
        feeds, logs = await self._index.progress()
        self._feeds.update(feeds)
        for tenant in self._tenants:
            for query in (sources.recorded(tenant), sources.results(tenant)):
                self._news.add(query.tenant)
                hear = partial(self._news.add, query.tenant)
                self._watches[query.tenant] = self._engine.watch_changes(query.tenant, hear)
        for key, progress in logs.items():
            self._follow(key, progress)
        await super().__aenter__()
        self.begin()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await super().__aexit__(exc_type, exc, traceback)
        for watch in self._watches.values():
            watch.close()

    async def caught_up(self) -> None:
        """Wait until the index holds what this server has heard of by now, for a second at most.

        Raises UNAVAILABLE until all that was there at the start has been read: sums of a part would be wrong.
        """
        looked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(looked)
        self.begin()
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await looked
        if not self._complete:
            raise unavailable("the scores are still being read; try again")

    async def look(self) -> None:
        """Read on until nothing is left, and again if somebody has asked meanwhile."""
        while True:
            waiting, self._waiting = self._waiting, []
            await self._look()
            for looked in waiting:
                if not looked.done():
                    looked.set_result(None)
            if not self._waiting:
                return

    async def _look(self) -> None:
        try:
            for tenant in self._tenants:
                await self._read_feed(sources.recorded(tenant), partial(self._take_recorded, tenant))
                await self._read_feed(sources.results(tenant), partial(self._take_results, tenant))
            for key in [key for key in self._logs if key in self._news]:
                await self._read_log(key)
        except Exception as error:
            self._tell_of(error)
        else:
            self._complete, self._failing = True, False

    def _tell_of(self, error: Exception) -> None:
        """Log the first of several failures in a row; the next look tries again."""
        if not self._failing:
            self._failing = True
            known = isinstance(error, LavantError)
            _log.warning("scores_not_read", error=str(error) if known else None, exc_info=not known)

    async def _read_feed(self, query: RunQuery, take: Callable[[Sequence[Run], Intake], Awaitable[None]]) -> None:
        if query.tenant not in self._news:
            return
        self._news.discard(query.tenant)
        try:
            while True:
                after = self._feeds.get(query.tenant, 0)
                changes, position = await self._engine.list_changes(query, after)
                if position == after:
                    return
                intake = Intake(feeds={query.tenant: position})
                await take([change.run for change in changes], intake)
                await self._index.take_in(intake)
                self._feeds[query.tenant] = position
                for key, progress in intake.logs.items():
                    self._follow(key, progress)
        except BaseException:
            self._news.add(query.tenant)
            raise

    async def _take_recorded(self, tenant: str, runs: Sequence[Run], intake: Intake) -> None:
        intake.found = await sources.read_recorded(self._engine, tenant, runs)

    async def _take_results(self, tenant: str, runs: Sequence[Run], intake: Intake) -> None:
        for run in filter(sources.is_result, runs):
            key, created_ns = RunKey(tenant, run.run_id), run.create_time.ToNanoseconds()
            if key not in self._logs or self._logs[key].created_ns != created_ns:
                intake.logs[key] = LogProgress(created_ns)

    def _follow(self, key: RunKey, progress: LogProgress) -> None:
        self._logs[key] = progress
        if not progress.sealed:
            self._news.add(key)
            if key not in self._watches:
                self._watches[key] = self._engine.watch(key, lambda _: self._news.add(key))

    async def _read_log(self, key: RunKey) -> None:
        self._news.discard(key)
        try:
            while not self._logs[key].sealed:
                progress = self._logs[key]
                found, reached = await sources.read_on(self._engine, key.tenant, key, progress)
                if reached == progress:
                    return
                await self._index.take_in(Intake(found=[found], logs={key: reached}))
                self._logs[key] = reached
        except BaseException:
            self._news.add(key)
            raise
        self._news.discard(key)  # heard while its end was read already
        if (watch := self._watches.pop(key, None)) is not None:
            watch.close()
