"""Directory of the rules of all tenants, for what needs them every few seconds."""

import asyncio
from collections.abc import Sequence

from lavant.server.clock import Clock
from lavant.server.evaluation.log import RECORDS
from lavant.server.evaluation.rules import Rules
from lavant.server.model import RESULTS_OF_RULES, beside
from lavant.server.store.port import Engine, RunQuery
from lavant.v1.rule_pb2 import Rule
from lavant.v1.run_pb2 import RunKind
from lavant.v1.run_service_pb2 import RunFilter

_LONGEST = 300.0  # seconds, after which rules are read again in any case
_SEGMENTS = RunFilter(kinds=[RunKind.RUN_KIND_EVALUATION], labels=RESULTS_OF_RULES)


class RuleDirectory:
    """Settings of each tenant's rules, read again only after a change.

    A rule that is changed, by any replica, begins a new segment of its results; one that is created or deleted changes
    the list of logs too. A replica that dies between both leaves its change unseen for `_LONGEST`.
    """

    def __init__(self, engine: Engine, clock: Clock, rules: Rules) -> None:
        self._engine = engine
        self._clock = clock
        self._rules = rules
        self._tenants: dict[str, _Known] = {}
        self._changed: set[str] = set()
        self._watch = engine.watch_tenants(lambda name: self._changed.add(name))

    async def of(self, tenant: str) -> Sequence[Rule]:
        """Return the rules of a tenant with their settings, without what is derived from their ledgers."""
        known = self._tenants.setdefault(tenant, _Known())
        async with known.lock:
            names = {tenant, beside(tenant, RECORDS)} & self._changed
            self._changed -= names
            try:
                if (
                    known.read_at is None
                    or self._clock.monotonic() - known.read_at > _LONGEST
                    or beside(tenant, RECORDS) in names
                    or (names and await self._has_new_segments(tenant, known))
                ):
                    await self._read(tenant, known)
            except BaseException:
                self._changed |= names
                raise
            return known.rules

    def close(self) -> None:
        """Stop watching."""
        self._watch.close()

    async def _read(self, tenant: str, known: "_Known") -> None:
        read_at = self._clock.monotonic()
        position = await self._engine.last_change(tenant, known.position)
        known.rules = await self._rules.all(tenant)
        known.position, known.read_at = position, read_at

    async def _has_new_segments(self, tenant: str, known: "_Known") -> bool:
        query = RunQuery(tenant=tenant, limit=1, filter=_SEGMENTS)
        while True:
            changes, position = await self._engine.list_changes(query, known.position)
            if changes or position == known.position:
                return bool(changes)
            known.position = position


class _Known:
    """Rules of a tenant, the time at which they were read, and the position in the feed of changes by then."""

    def __init__(self) -> None:
        self.rules: Sequence[Rule] = ()
        self.read_at: float | None = None
        self.position = 0
        self.lock = asyncio.Lock()
