"""Follower of the logs that scores are recorded in: keeps the index up to date."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

import structlog

from lavant.server.clock import Clock, Periodic
from lavant.server.errors import unavailable
from lavant.server.model import callers_tenant
from lavant.server.scores.index.database import ScoreIndex
from lavant.server.scores.index.intake import read_positions
from lavant.server.scores.index.tenant import TenantScores, is_followed
from lavant.server.store.port import Engine, Watch
from lavant.server.tasks import for_each

_INTERVAL = 1.0  # seconds between two passes, unless a caller asks
_PATIENCE = 1.0  # seconds that a caller waits for a pass
_AT_ONCE = 8  # tenants that are read together

_log = structlog.get_logger(__name__)


class Follower(Periodic):
    """Reads the scores of all tenants, every second and on request, from `async with` to its end.

    A pass reads the tenants with a change since the last one, and no others. Tenants do not wait for each other: a
    caller waits only for the scores of its own, and a log that cannot be read holds up no other tenant's.
    """

    def __init__(self, engine: Engine, index: ScoreIndex, clock: Clock) -> None:
        super().__init__(clock, _INTERVAL)
        self._engine = engine
        self._index = index
        self._tenants: dict[str, TenantScores] = {}
        self._changed: dict[str, None] = {}  # tenants with something to read; in the order of their changes
        self._watch: Watch | None = None
        self._is_listed = False  # whether the tenants of the start are known

    async def __aenter__(self) -> Self:
        feeds, logs = await self._index.write(read_positions)
        self._watch = self._engine.watch_tenants(self._on_change)
        for name, position in feeds.items():
            self._of(callers_tenant(name)).feeds[name] = position
        for key, reached in logs.items():
            self._of(key.tenant).follow(key, reached)
        await super().__aenter__()
        self.trigger()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await super().__aexit__(exc_type, exc, traceback)
        if self._watch is not None:
            self._watch.close()
        for tenant in self._tenants.values():
            await tenant.close()

    async def caught_up(self, tenant: str) -> None:
        """Wait until the index holds what this server knows to be recorded by now, for a second at most.

        Raises UNAVAILABLE until all that was stored at the start has been read: sums of a part would be wrong.
        """
        if not self._is_listed:
            await self._list()
        scores = self._tenants.get(tenant)
        if scores is None or scores.is_current:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await scores.read_by_now()
        if not scores.is_complete:
            raise unavailable("the scores are still being read; try again")

    def version(self, tenant: str) -> int:
        """Return a number that grows when scores of a tenant are added to the index."""
        scores = self._tenants.get(tenant)
        return 0 if scores is None else scores.version

    async def run_once(self) -> None:
        """Read the tenants that have changed; what changes meanwhile is left to the next pass."""
        if not self._is_listed:
            try:
                await self._list()
            except Exception as error:
                _log.debug("tenants_not_listed", exc_info=error)
                return
        changed, self._changed = self._changed, {}
        await for_each(lambda tenant: self._tenants[tenant].read_changed(), changed, at_once=_AT_ONCE)

    async def _list(self) -> None:
        """Find the tenants that there were before the watch began."""
        for name in await self._engine.list_tenants():
            self._on_change(name)
        self._is_listed = True

    def _on_change(self, name: str) -> None:
        if is_followed(name):
            self._of(callers_tenant(name)).changed(name)

    def _of(self, tenant: str) -> TenantScores:
        scores = self._tenants.get(tenant)
        if scores is None:
            scores = TenantScores(tenant, self._engine, self._index, lambda: self._changed.setdefault(tenant))
            self._tenants[tenant] = scores
        return scores
